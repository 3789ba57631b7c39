"""Where things are on a btrfs device: chunks, and what the trees of chunks, devices and free space say of them.

The plainest layout that the format knows: one device, single profiles, addresses inside the file system equal to
those on the device, no chunk over a copy of the superblock, each chunk used from its front without gaps. What no
chunk covers is the kernel's to allocate. Pure.

Source: kernel include/uapi/linux/btrfs_tree.h (btrfs_chunk, btrfs_dev_item, btrfs_dev_extent,
btrfs_block_group_item, btrfs_free_space_info); fs/btrfs/volumes.c for the kernel's own sizes of chunks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from umlbuild.errors import StepFailed
from umlbuild.host.btrfs_tree import (
    BLOCK_GROUP,
    CHUNK_ITEM,
    CHUNK_TREE,
    DEV_EXTENT,
    DEV_ITEM,
    EXTENT_TREE,
    FREE_SPACE_EXTENT,
    FREE_SPACE_INFO,
    PERSISTENT_ITEM,
    SECTOR,
    Identity,
    Item,
)

SUPERS = (64 << 10, 64 << 20, 256 << 30)
"""Where the superblock and its copies are."""

DATA, SYSTEM, METADATA = 1, 2, 4
_MIB = 1 << 20
_FIRST_BYTE = _MIB
"""btrfs leaves the first MiB of a device to boot loaders."""

_LARGEST_CHUNK = 1 << 30
_LEAST_DATA, _SYSTEM_SIZE = 8 << 20, 4 << 20
"""mkfs.btrfs's own sizes."""

_SPARE, _LEAST_SPARE = 16 << 20, 8 << 20
"""Free metadata that a guest finds; the kernel's reserve for its own work comes out of it."""

_USUAL_METADATA = 256 << 20
"""A metadata chunk as the kernel makes them; in a small file system it is a tenth."""

_CHUNK_OBJECT, _DEVICE = 256, 1
_STRIPE = 64 << 10
_CHUNK = struct.Struct("<4Q3I2H2Q16s")
_DEV_ITEM = struct.Struct("<3Q3I3QI2B16s16s")
_DEV_EXTENT = struct.Struct("<4Q16s")
_STATS = 5 * 8


class NoRoom(StepFailed):
    """The content does not fit into the size."""

    def __init__(self, message: str) -> None:
        super().__init__(f"btrfs: {message}", 'make image.size larger (or "auto+64M")')


@dataclass(frozen=True)
class Chunk:
    """A range of the device with one use."""

    start: int
    length: int
    use: int
    used: int


class Device:
    """What of a device is not taken yet, between the copies of the superblock."""

    def __init__(self, size: int) -> None:
        self.size = size
        starts = [_FIRST_BYTE, *(at + _MIB for at in SUPERS[1:])]
        ends = [min(at, size // _MIB * _MIB) for at in (*SUPERS[1:], size)]
        self._gaps = [[start, end] for start, end in zip(starts, ends, strict=True) if start < end]

    def system(self, used: int = 0) -> Chunk:
        """The chunk of the tree of chunks, the first to be taken."""
        return Chunk(self._take(_SYSTEM_SIZE), _SYSTEM_SIZE, SYSTEM, used)

    def data(self, used: int) -> list[Chunk]:
        """Chunks for so many bytes. Raises: NoRoom."""
        chunks: list[Chunk] = []
        left, unplaced = max(_up(used), _LEAST_DATA), used
        while left > 0:
            gap = next((gap for gap in self._gaps if gap[0] < gap[1]), None)
            if gap is None:
                raise NoRoom(f"{used} bytes of data do not fit into {self.size}")
            length = min(left, _LARGEST_CHUNK, gap[1] - gap[0])
            chunks.append(Chunk(gap[0], length, DATA, min(unplaced, length)))
            gap[0] += length
            left -= length
            unplaced -= chunks[-1].used
        return chunks

    def metadata(self, used: int) -> Chunk:
        """One chunk for so many bytes and some more; takes nothing, so that it can be asked again.

        Raises: NoRoom.
        """
        start, end = max(self._gaps, key=lambda gap: gap[1] - gap[0])
        wished = max(_up(2 * used) + _SPARE, _up(min(_USUAL_METADATA, self.size // 10)))
        fitting = [gap[0] for gap in self._gaps if gap[1] - gap[0] >= wished]
        if fitting:
            return Chunk(fitting[0], wished, METADATA, used)
        if end - start < used + _LEAST_SPARE:
            raise NoRoom(f"{used} bytes of metadata do not fit into what is left of {self.size}")
        return Chunk(start, end - start, METADATA, used)

    def _take(self, length: int) -> int:
        for gap in self._gaps:
            if gap[1] - gap[0] >= length:
                gap[0] += length
                return gap[0] - length
        raise NoRoom(f"{self.size} bytes are too few for a file system")


def device_item(chunks: Sequence[Chunk], size: int, identity: Identity) -> bytes:
    """What the superblock, too, says of the device. Its own identifier is the file system's."""
    taken = sum(chunk.length for chunk in chunks)
    return _DEV_ITEM.pack(
        _DEVICE, size, taken, SECTOR, SECTOR, SECTOR, 0, 0, 0, 0, 0, 0, identity.fsid, identity.fsid
    )  # fmt: skip


def chunk_item(chunk: Chunk, identity: Identity) -> Item:
    """A chunk and its one stripe."""
    body = _CHUNK.pack(
        chunk.length, EXTENT_TREE, _STRIPE, chunk.use, _STRIPE, _STRIPE, SECTOR, 1, 1,
        _DEVICE, chunk.start, identity.fsid,
    )  # fmt: skip
    return (_CHUNK_OBJECT, CHUNK_ITEM, chunk.start), body


def chunk_tree_items(chunks: Sequence[Chunk], size: int, identity: Identity) -> Iterator[Item]:
    """The device, and every chunk."""
    yield (1, DEV_ITEM, _DEVICE), device_item(chunks, size, identity)
    yield from (chunk_item(chunk, identity) for chunk in chunks)


def device_tree_items(chunks: Sequence[Chunk], identity: Identity) -> Iterator[Item]:
    """Counters of errors, and which chunk each range of the device belongs to."""
    yield (0, PERSISTENT_ITEM, _DEVICE), bytes(_STATS)
    for chunk in chunks:
        body = _DEV_EXTENT.pack(CHUNK_TREE, _CHUNK_OBJECT, chunk.start, chunk.length, identity.chunk_tree)
        yield (_DEVICE, DEV_EXTENT, chunk.start), body


def block_group_items(chunks: Sequence[Chunk]) -> Iterator[Item]:
    """How much of each chunk is used."""
    for chunk in chunks:
        yield (chunk.start, BLOCK_GROUP, chunk.length), struct.pack("<3Q", chunk.used, _CHUNK_OBJECT, chunk.use)


def free_space_items(chunks: Sequence[Chunk]) -> Iterator[Item]:
    """What is free in each chunk: one range at its end, if it is not full."""
    for chunk in chunks:
        free = chunk.length - chunk.used
        yield (chunk.start, FREE_SPACE_INFO, chunk.length), struct.pack("<2I", 1 if free else 0, 0)
        if free:
            yield (chunk.start + chunk.used, FREE_SPACE_EXTENT, free), b""


def _up(size: int) -> int:
    return -(-size // _MIB) * _MIB
