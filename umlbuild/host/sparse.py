"""Sparse files: measure them, copy them with their holes, link them where that is possible."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from umlbuild import digest
from umlbuild.host import ranges

_BLOCK = 1 << 20
_PAGE = 4096
_ZEROS = bytes(_PAGE)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
"""FALLOC_FL_*. Source: fallocate(2)."""
_WRITE = 2
"""SYNC_FILE_RANGE_WRITE. Source: sync_file_range(2)."""


def used(path: Path) -> int:
    """The bytes that a file occupies on the disk, as `du` counts them."""
    return path.stat().st_blocks * 512


def copy(source: Path, target: Path) -> None:
    """Copy a file's content and keep its holes; `target` must not exist. Mode and mtime are kept too."""
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        info = os.fstat(reader.fileno())
        os.truncate(writer.fileno(), info.st_size)
        for at, end in digest.extents(reader.fileno(), info.st_size):
            writer.seek(at)
            ranges.copy(reader.fileno(), writer.fileno(), at, end)
        os.fchmod(writer.fileno(), info.st_mode & 0o7777)
    os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))


def link_or_copy(source: Path, target: Path) -> None:
    """`target` as another name of `source`, or as a copy where that cannot be (another file system)."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        copy(source, target)


def dig(path: Path) -> None:
    """Give back every page of zeros, and space that is only reserved (`fallocate --dig-holes` keeps that).

    Where the file system cannot, nothing happens.
    """
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    with path.open("r+b", buffering=0) as file:
        for start, end in list(empty_ranges(file.fileno(), os.fstat(file.fileno()).st_size)):
            if fallocate(file.fileno(), _KEEP_SIZE | _PUNCH_HOLE, start, end - start) != 0:
                return


def start_writing(path: Path) -> None:
    """Let the disk begin with what is not on it yet; nobody waits."""
    start = ctypes.CDLL(None).sync_file_range
    start.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    with path.open("rb") as file:
        start(file.fileno(), 0, 0, _WRITE)  # where that cannot be, it begins later


def empty_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of whole pages that read as zeros, neighbours joined."""
    at = start = 0  # [start, at) reads as zeros
    for data, end in digest.extents(fd, size):
        at = max(at, data // _PAGE * _PAGE)
        while at < end:
            block = os.pread(fd, _BLOCK, at)
            if not block:  # it became shorter meanwhile
                return
            for offset in range(0, len(block), _PAGE):
                if block[offset : offset + _PAGE] == _ZEROS:
                    continue
                if at + offset > start:
                    yield start, at + offset
                start = at + offset + _PAGE
            at += len(block)
    if start < size // _PAGE * _PAGE:
        yield start, size // _PAGE * _PAGE
