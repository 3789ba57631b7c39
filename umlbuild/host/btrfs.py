"""Writes a whole btrfs into a file, from an archive's members or empty, with no program of its own.

mkfs.btrfs --rootdir takes owners and attributes only from a real tree, and numbers the files in the order in
which the host's file system lists them (nftw(3)), so its bytes differ from host to host. Here everything follows
from the members and the UUID. Content is checksummed, as the kernel would; nothing is unpacked or mounted.

Source: kernel include/uapi/linux/btrfs_tree.h (btrfs_super_block, btrfs_root_item, btrfs_extent_item); the trees
and values of an empty file system are those of mkfs.btrfs 6.14 (`inspect-internal dump-tree`, `dump-super`).
"""

from __future__ import annotations

import os
import struct
import uuid as uuids
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import google_crc32c

from umlbuild.errors import StepFailed
from umlbuild.host import btrfs_layout
from umlbuild.host.btrfs_files import FIRST, Inode, directory_entry, give_sectors, inode_item, inodes_of, items_of
from umlbuild.host.btrfs_layout import SUPERS, Chunk, Device
from umlbuild.host.btrfs_tree import (
    CHUNK_TREE,
    CSUM_OBJECT,
    CSUM_TREE,
    DATA_RELOC_TREE,
    DEV_TREE,
    DIR_ITEM,
    EXTENT_CSUM,
    EXTENT_ITEM,
    EXTENT_TREE,
    FREE_SPACE_TREE,
    FS_TREE,
    GENERATION,
    INODE_ITEM,
    INODE_REF,
    METADATA_ITEM,
    NODE,
    ROOT_DIR,
    ROOT_ITEM,
    ROOT_TREE,
    SECTOR,
    UUID_SUBVOLUME,
    UUID_TREE,
    Identity,
    Item,
    Tree,
    name_hash,
    packed_key,
    sealed,
)
from umlbuild.host.process import EPOCH
from umlbuild.host.tarball import Member, Span

_READ = 1 << 20
_ZEROS = bytes(_READ)
_CSUMS_PER_ITEM = 4057
"""Source: fs/btrfs/file-item.c, MAX_CSUM_ITEMS."""

_MAGIC = b"_BHRfS_M"
_SUPER = struct.Struct("<16sQQ8s9Q5I4QH3B98s256s2Q")
_SUPER_BYTES, _SYSTEM_CHUNKS_AT = 4096 - 32, 811 - 32
_FREE_SPACE_TREE_IS_VALID = 0b11
_FEATURES = 0x361
"""mixed back references, nodes larger than a page, extended inode references, skinny metadata, no holes."""

_ROOT = struct.Struct("<160s7QI17xBBQ16s32x4Q" + "QI" * 4 + "64x")
_BACKREF = struct.Struct("<3QBQ")
_DATA_BACKREF = struct.Struct("<3QB3QI")
_OF_DATA, _OF_TREE = 1, 2
_TREE_BLOCK_REF, _EXTENT_DATA_REF = 176, 178
_ROUNDS = 20


@dataclass(frozen=True)
class _Placed:
    """A tree and the address of its first block."""

    tree: Tree
    first: int

    @property
    def root(self) -> int:
        return self.tree.root(self.first)


@dataclass(frozen=True)
class _Layout:
    """Where everything is."""

    chunks: list[Chunk]
    trees: dict[int, _Placed]


def write(image: Path, members: Sequence[Member], *, uuid: str, label: str) -> None:
    """Fill an image that has its size and reads as zeros.

    Raises: btrfs_layout.NoRoom; StepFailed for members that cannot be said.
    """
    fsid = uuids.UUID(uuid)
    identity = Identity(fsid.bytes, uuids.uuid5(fsid, "chunk tree").bytes)
    device = Device(image.stat().st_size)
    system = device.system()
    inodes = inodes_of(members)
    data = device.data(sum(inode.sectors for inode in inodes))
    give_sectors(inodes, _taker(data))
    with image.open("r+b") as file:
        checksums = _copy(inodes, file)
        trees = [
            Tree(FS_TREE, (item for inode in inodes for item in items_of(inode))),
            Tree(CSUM_TREE, _checksum_items(data, checksums)),
            Tree(DATA_RELOC_TREE, items_of(inodes_of([])[0])),
            Tree(UUID_TREE, [_uuid_item(fsid)]),
        ]
        layout = _laid_out(
            device, system, data, trees=trees, extents=list(_data_extents(inodes)), identity=identity
        )  # fmt: skip
        for placed in layout.trees.values():
            file.seek(placed.first)
            file.writelines(placed.tree.packed(placed.first, identity))
        for at in SUPERS:
            if at + SECTOR <= device.size:
                file.seek(at)
                file.write(_superblock(at, layout, device.size, identity, label))


def _taker(chunks: Sequence[Chunk]) -> Callable[[int], tuple[int, int]]:
    """Gives ranges of the chunks, one after the other."""
    free = [[chunk.start, chunk.start + chunk.used] for chunk in chunks]

    def take(length: int) -> tuple[int, int]:
        while free[0][0] == free[0][1]:
            free.pop(0)
        start, end = free[0]
        length = min(length, end - start)
        free[0][0] += length
        return start, length

    return take


def _copy(inodes: Sequence[Inode], image: IO[bytes]) -> bytes:
    """Write the content of all files; returns the checksums of its sectors in their order on the disk."""
    sums: list[int] = []
    with ExitStack() as stack:
        archives: dict[Path, IO[bytes]] = {}
        for inode in inodes:
            source = inode.member.data
            if isinstance(source, Span) and source.file not in archives:
                archives[source.file] = stack.enter_context(source.file.open("rb", buffering=0))
            for extent in inode.extents:
                for at in range(0, extent.length, _READ):
                    length = min(_READ, extent.length - at)
                    block = _read(source, archives, extent.offset + at, length).ljust(length, b"\0")
                    if block != _ZEROS[:length]:
                        image.seek(extent.at + at)
                        image.write(block)
                    sums += [google_crc32c.value(block[n : n + SECTOR]) for n in range(0, length, SECTOR)]
    return struct.pack(f"<{len(sums)}I", *sums)


def _read(source: bytes | Span, archives: Mapping[Path, IO[bytes]], at: int, length: int) -> bytes:
    """A part of a file's content, shorter where the file ends."""
    if isinstance(source, bytes):
        return source[at : at + length]
    wanted = min(length, source.end - source.start - at)
    block = os.pread(archives[source.file].fileno(), wanted, source.start + at)
    if len(block) != wanted:
        raise StepFailed(f"{source.file.name}: it is cut off")
    return block


def _checksum_items(chunks: Sequence[Chunk], checksums: bytes) -> Iterator[Item]:
    """The checksums, as many to an item as the kernel puts there; none spans two chunks."""
    done = 0
    for chunk in chunks:
        for at in range(chunk.start, chunk.start + chunk.used, _CSUMS_PER_ITEM * SECTOR):
            count = min(_CSUMS_PER_ITEM, (chunk.start + chunk.used - at) // SECTOR)
            yield (CSUM_OBJECT, EXTENT_CSUM, at), checksums[4 * done : 4 * (done + count)]
            done += count


def _data_extents(inodes: Sequence[Inode]) -> Iterator[Item]:
    """Who uses each range of data."""
    for inode in inodes:
        for extent in inode.extents:
            yield (extent.at, EXTENT_ITEM, extent.length), _DATA_BACKREF.pack(
                1, GENERATION, _OF_DATA, _EXTENT_DATA_REF, FS_TREE, inode.number, extent.offset, 1
            )  # fmt: skip


def _uuid_item(fsid: uuids.UUID) -> Item:
    """Which tree has the identifier: the tree of files."""
    low, high = struct.unpack("<2Q", _files_uuid(fsid))
    return (low, UUID_SUBVOLUME, high), struct.pack("<Q", FS_TREE)


def _files_uuid(fsid: uuids.UUID) -> bytes:
    return uuids.uuid5(fsid, "file tree").bytes


def _laid_out(
    device: Device, system: Chunk, data: Sequence[Chunk], *,
    trees: Sequence[Tree], extents: Sequence[Item], identity: Identity,
) -> _Layout:  # fmt: skip
    """Find the place of every block, the root tree's first, the extent tree's last.

    The extent tree lists its own blocks, too: it is made anew until it has as many as it lists.
    """
    extent_tree = Tree(EXTENT_TREE, extents)
    metadata = Chunk(0, 0, btrfs_layout.METADATA, 0)
    for _ in range(_ROUNDS):
        chunk_tree = Tree(CHUNK_TREE, btrfs_layout.chunk_tree_items([system, *data, metadata], device.size, identity))
        chunks = [replace(system, used=chunk_tree.blocks * NODE), *data, metadata]
        placed = {CHUNK_TREE: _Placed(chunk_tree, system.start)}
        at = metadata.start + NODE
        for tree in (
            *trees,
            Tree(DEV_TREE, btrfs_layout.device_tree_items(chunks, identity)),
            Tree(FREE_SPACE_TREE, btrfs_layout.free_space_items(chunks)),
            extent_tree,
        ):
            placed[tree.owner] = _Placed(tree, at)
            at += tree.blocks * NODE
        root_tree = Tree(ROOT_TREE, _root_items(placed, identity))
        assert root_tree.blocks == 1, "nine trees fit into one leaf"
        placed[ROOT_TREE] = _Placed(root_tree, metadata.start)
        made = Tree(EXTENT_TREE, [*extents, *btrfs_layout.block_group_items(chunks), *_tree_extents(placed)])
        if made.levels == extent_tree.levels and metadata.used == at - metadata.start:
            placed[EXTENT_TREE] = _Placed(made, placed[EXTENT_TREE].first)
            return _Layout(chunks, placed)
        metadata = device.metadata(at - metadata.start + (made.blocks - extent_tree.blocks) * NODE)
        extent_tree = made
    raise AssertionError("the extent tree does not come to rest")


def _tree_extents(placed: Mapping[int, _Placed]) -> Iterator[Item]:
    """Which tree each block belongs to."""
    for owner, one in placed.items():
        for number, level in enumerate(one.tree.levels):
            yield (one.first + number * NODE, METADATA_ITEM, level), _BACKREF.pack(
                1, GENERATION, _OF_TREE, _TREE_BLOCK_REF, owner
            )  # fmt: skip


def _root_items(placed: Mapping[int, _Placed], identity: Identity) -> Iterator[Item]:
    """Where each tree begins, and the directory of trees, in which "default" is the one to mount."""
    for owner, one in placed.items():
        if owner == CHUNK_TREE:  # the superblock's
            continue
        files, of_files = owner == FS_TREE, owner in (FS_TREE, DATA_RELOC_TREE)
        made = EPOCH if files else 0
        yield (owner, ROOT_ITEM, 0), _ROOT.pack(
            inode_item(inodes_of([])[0]) if of_files else bytes(160),
            GENERATION, FIRST if of_files else 0, one.root, 0, one.tree.blocks * NODE, 0, 0,
            1, 0, one.tree.level, GENERATION,
            _files_uuid(uuids.UUID(bytes=identity.fsid)) if files else bytes(16),
            0, 0, 0, 0, made, 0, made, 0, 0, 0, 0, 0,
        )  # fmt: skip
    name = b"default"
    yield (FS_TREE, INODE_REF, ROOT_DIR), struct.pack("<QH", 0, len(name)) + name
    yield (ROOT_DIR, INODE_ITEM, 0), inode_item(inodes_of([])[0])
    yield (ROOT_DIR, INODE_REF, ROOT_DIR), struct.pack("<QH", 0, 2) + b".."
    yield (ROOT_DIR, DIR_ITEM, name_hash(name)), directory_entry((FS_TREE, ROOT_ITEM, 2**64 - 1), "dir", name)


def _superblock(at: int, layout: _Layout, size: int, identity: Identity, label: str) -> bytes:
    chunks, trees = layout.chunks, layout.trees
    (key, system), root, chunk_root = (
        btrfs_layout.chunk_item(chunks[0], identity), trees[ROOT_TREE], trees[CHUNK_TREE],
    )  # fmt: skip
    known = packed_key(key) + system
    body = _SUPER.pack(
        identity.fsid, at, 1, _MAGIC,
        GENERATION, root.root, chunk_root.root, 0, 0, size, sum(chunk.used for chunk in chunks), ROOT_DIR, 1,
        SECTOR, NODE, NODE, SECTOR, len(known),
        GENERATION, 0, _FREE_SPACE_TREE_IS_VALID, _FEATURES,
        0, root.tree.level, chunk_root.tree.level, 0,
        btrfs_layout.device_item(chunks, size, identity), label.encode(), 0, GENERATION,
    )  # fmt: skip
    return sealed((body.ljust(_SYSTEM_CHUNKS_AT, b"\0") + known).ljust(_SUPER_BYTES, b"\0"))
