"""btrfs metadata as bytes: keys, items, and whole trees packed into blocks. Pure; reads and writes no file.

A tree is made at once of all its items, blocks filled to the brim and numbered in a row: its leaves, then
each level above them, the root last.

Source: kernel include/uapi/linux/btrfs_tree.h (btrfs_header, btrfs_item, btrfs_key_ptr); fs/btrfs/tree-checker.c
for what a kernel refuses; btrfs-progs 6.14 `inspect-internal dump-tree` of what mkfs.btrfs writes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import google_crc32c

SECTOR = 4096
NODE = 16384
"""Bytes of a metadata block; mkfs.btrfs's default."""

GENERATION = 1
"""Everything is written in one transaction."""

Key = tuple[int, int, int]
"""objectid, type, offset."""
Item = tuple[Key, bytes]

INODE_ITEM, INODE_REF, XATTR_ITEM, DIR_ITEM, DIR_INDEX, EXTENT_DATA = 1, 12, 24, 84, 96, 108
EXTENT_CSUM, ROOT_ITEM, EXTENT_ITEM, METADATA_ITEM, BLOCK_GROUP = 128, 132, 168, 169, 192
FREE_SPACE_INFO, FREE_SPACE_EXTENT, DEV_EXTENT, DEV_ITEM, CHUNK_ITEM = 198, 199, 204, 216, 228
PERSISTENT_ITEM, UUID_SUBVOLUME = 249, 251

ROOT_TREE, EXTENT_TREE, CHUNK_TREE, DEV_TREE, FS_TREE, ROOT_DIR, CSUM_TREE, UUID_TREE, FREE_SPACE_TREE = (
    1, 2, 3, 4, 5, 6, 7, 9, 10,
)  # fmt: skip
CSUM_OBJECT, DATA_RELOC_TREE = 2**64 - 10, 2**64 - 9

_KEY = struct.Struct("<QBQ")
_ITEM = struct.Struct("<QBQII")
_POINTER = struct.Struct("<QBQQQ")
_HEADER = struct.Struct("<16sQQ16sQQIB")
_CSUM = 32
"""Bytes that a checksum may take; crc32c uses four."""

_ROOM = NODE - _CSUM - _HEADER.size
_WRITTEN = 1 | 1 << 56
"""The flag that the block is on disk, and the revision of its back references."""

LARGEST_ITEM = _ROOM - _ITEM.size
_POINTERS = _ROOM // _POINTER.size


@dataclass(frozen=True)
class Identity:
    """What every block of one file system repeats."""

    fsid: bytes
    chunk_tree: bytes


def packed_key(key: Key) -> bytes:
    """A key as it stands inside items."""
    return _KEY.pack(*key)


def name_hash(name: bytes) -> int:
    """The hash under which a directory or an inode keeps a name. Source: fs/btrfs/ctree.h btrfs_name_hash."""
    return int(google_crc32c.extend(1, name)) ^ 0xFFFFFFFF


def sealed(body: bytes) -> bytes:
    """A block: the checksum field, and all that it covers."""
    return struct.pack("<I", google_crc32c.value(body)) + bytes(_CSUM - 4) + body


class Tree:
    """One tree: which items share a leaf, and how many blocks that takes."""

    def __init__(self, owner: int, items: Iterable[Item]) -> None:
        self.owner = owner
        self._leaves = _leaves(sorted(items, key=lambda item: item[0]))
        self._widths = [len(self._leaves)]
        while self._widths[-1] > 1:
            self._widths.append(-(-self._widths[-1] // _POINTERS))

    @property
    def levels(self) -> list[int]:
        """The level of each block, in their order."""
        return [level for level, width in enumerate(self._widths) for _ in range(width)]

    @property
    def blocks(self) -> int:
        """How many there are."""
        return sum(self._widths)

    @property
    def level(self) -> int:
        """The root's."""
        return len(self._widths) - 1

    def root(self, first: int) -> int:
        """The root's address, if the first block is at `first`."""
        return first + (self.blocks - 1) * NODE

    def packed(self, first: int, identity: Identity) -> Iterator[bytes]:
        """The blocks from the address `first` on."""
        at, heads = first, []
        for leaf in self._leaves:
            yield self._block(identity, at, 0, len(leaf), _leaf(leaf))
            heads.append((leaf[0][0] if leaf else (0, 0, 0), at))
            at += NODE
        for level in range(1, len(self._widths)):
            below, heads = heads, []
            for start in range(0, len(below), _POINTERS):
                pointed = below[start : start + _POINTERS]
                body = b"".join(_POINTER.pack(*key, where, GENERATION) for key, where in pointed)
                yield self._block(identity, at, level, len(pointed), body)
                heads.append((pointed[0][0], at))
                at += NODE

    def _block(self, identity: Identity, at: int, level: int, count: int, body: bytes) -> bytes:
        header = _HEADER.pack(
            identity.fsid, at, _WRITTEN, identity.chunk_tree, GENERATION, self.owner, count, level
        )  # fmt: skip
        return sealed(header + body.ljust(_ROOM, b"\0"))


def _leaves(items: Sequence[Item]) -> list[list[Item]]:
    leaves: list[list[Item]] = [[]]
    room = _ROOM
    for item in items:
        size = _ITEM.size + len(item[1])
        assert size <= _ROOM, f"{item[0]} is larger than a leaf"
        if size > room:
            leaves.append([])
            room = _ROOM
        leaves[-1].append(item)
        room -= size
    return leaves


def _leaf(items: Sequence[Item]) -> bytes:
    """Items grow from the front, their data from the end."""
    end = _ROOM
    heads = []
    for key, data in items:
        end -= len(data)
        heads.append(_ITEM.pack(*key, end, len(data)))
    front = b"".join(heads)
    return front + bytes(end - len(front)) + b"".join(data for _, data in reversed(items))
