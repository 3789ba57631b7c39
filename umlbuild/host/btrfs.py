"""A btrfs image as blocks: replace the identifiers that mkfs.btrfs draws at random and no option sets.

Metadata blocks are found by the file system's own UUID and a right checksum; fields keep their place and
size, so nothing but bytes and checksums changes. Never mounts, moves or resizes anything.

Source: kernel include/uapi/linux/btrfs_tree.h (btrfs_header, btrfs_super_block, btrfs_root_item). libuuid
draws with arc4random(3), which libfaketime's FAKERANDOM_SEED does not reach (btrfs-progs 6.14, tried).
"""

from __future__ import annotations

import os
import struct
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

from umlbuild.errors import StepFailed

_SUPER = 0x10000
_MAGIC = b"_BHRfS_M"
_CSUM = 32
"""Bytes that a checksum may take; crc32c uses four."""

_FSID, _MAGIC_AT, _NODESIZE, _CSUM_TYPE = 32, 64, 148, 196
_CHUNK_TREE_UUID, _OWNER, _ITEMS, _LEVEL, _HEADER = 64, 88, 96, 100, 101
_ITEM = struct.Struct("<QBQII")
_ROOT_TREE, _FS_TREE, _ROOT_ITEM, _UUID_KEY_SUBVOL = 1, 5, 132, 251
_ROOT_ITEM_UUID = 247


def settle(image: Path, uuid: str) -> None:
    """Make every identifier follow from the file system's UUID. Raises: StepFailed for another format."""
    fsid = uuids.UUID(uuid)
    with image.open("r+b", buffering=0) as file:
        fd = file.fileno()
        superblock = os.pread(fd, 4096, _SUPER)
        if superblock[_MAGIC_AT : _MAGIC_AT + 8] != _MAGIC or superblock[_FSID : _FSID + 16] != fsid.bytes:
            raise StepFailed(f"btrfs: {image.name} is no btrfs with the UUID {uuid}")
        if superblock[_CSUM_TYPE : _CSUM_TYPE + 2] != b"\0\0":
            raise StepFailed("btrfs: only crc32c checksums are understood")
        (nodesize,) = struct.unpack_from("<I", superblock, _NODESIZE)
        blocks = dict(_metadata(fd, nodesize, fsid.bytes))
        random = {
            **{block[_CHUNK_TREE_UUID : _CHUNK_TREE_UUID + 16]: "chunk tree" for block in blocks.values()},
            **{found: "file tree" for block in blocks.values() for found in _tree_uuids(block)},
        }
        fixed = {old: uuids.uuid5(fsid, what).bytes for old, what in random.items() if any(old)}
        for at, block in blocks.items():
            body = block[_CSUM:]
            for old, new in fixed.items():
                body = body.replace(old, new).replace(_uuid_key(old), _uuid_key(new))
            os.pwrite(fd, struct.pack("<I", crc32c(body)) + bytes(_CSUM - 4) + body, at)
        os.fsync(fd)


def _metadata(fd: int, nodesize: int, fsid: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, block) of every metadata block."""
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // nodesize * nodesize
        except OSError:  # nothing but a hole up to the end
            return
        end = os.lseek(fd, at + nodesize, os.SEEK_HOLE) if at + nodesize < size else size
        while at < end:
            block = os.pread(fd, nodesize, at)
            if block[_FSID : _FSID + 16] == fsid and block[_MAGIC_AT : _MAGIC_AT + 8] != _MAGIC:
                (stored,) = struct.unpack_from("<I", block)
                if stored == crc32c(block[_CSUM:]):
                    yield at, block
            at += nodesize


def _tree_uuids(block: bytes) -> Iterator[bytes]:
    """The identifier of the file tree, if this is the leaf of the root tree that describes it."""
    owner, count = struct.unpack_from("<QI", block, _OWNER)
    if owner != _ROOT_TREE or block[_LEVEL] != 0:
        return
    for number in range(count):
        objectid, kind, _, offset, _ = _ITEM.unpack_from(block, _HEADER + number * _ITEM.size)
        if (objectid, kind) == (_FS_TREE, _ROOT_ITEM):
            at = _HEADER + offset + _ROOT_ITEM_UUID
            yield block[at : at + 16]


def _uuid_key(uuid: bytes) -> bytes:
    """The key under which the UUID tree knows a tree: the two halves around the item's type."""
    return uuid[:8] + bytes([_UUID_KEY_SUBVOL]) + uuid[8:]


def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        rows.append(byte)
    return tuple(rows)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum (RFC 3720, B.4)."""
    table, value = _TABLE, 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
