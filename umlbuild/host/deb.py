"""A Debian package's file: an ar archive of `debian-binary`, `control.tar*` and `data.tar*`. Source: deb(5), ar(5)."""

from __future__ import annotations

import gzip
import lzma
import shutil
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO

_MAGIC = b"!<arch>\n"
_HEADER = 60
"""Bytes of a member's header: its name in 16, …"""
_SIZE = slice(48, 58)
"""… its size as decimal digits here."""
_DATA = b"data.tar"
_OPENERS: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {b".xz": lzma.open, b".gz": gzip.open}  # type: ignore[dict-item]
_DAMAGED = (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError)


def inflate(deb: Path, out: Path) -> bool:
    """Write a package with the same content and its files uncompressed, which dpkg takes as well.

    False, and there is no `out`, for one that is better left to dpkg: of another compression or shape, or damaged.
    """
    with deb.open("rb") as source:
        found = _data_of(source)
        if found is None:
            return False
        start, size, opener = found
        packed = BytesIO(source.read(size))
        source.seek(0)
        head = bytearray(source.read(start))
    try:
        with out.open("wb") as target, opener(packed) as data:
            target.seek(start)
            shutil.copyfileobj(data, target, 1 << 20)
            end = target.tell()
            target.write(b"\n" * (end % 2))
            own = len(head) - _HEADER
            head[own : own + 16] = _DATA.ljust(16)
            head[own + _SIZE.start : own + _SIZE.stop] = b"%-10d" % (end - start)
            target.seek(0)
            target.write(head)
    except _DAMAGED:
        out.unlink()
        return False
    return True


def _data_of(source: IO[bytes]) -> tuple[int, int, Callable[[IO[bytes]], IO[bytes]]] | None:
    """Where the packed files begin, their size and what opens them; the source is at the begin then."""
    if source.read(len(_MAGIC)) != _MAGIC:
        return None
    while len(header := source.read(_HEADER)) == _HEADER and header[_SIZE].strip().isdigit():
        name, size = header[:16].rstrip(b" /"), int(header[_SIZE])
        if name.startswith(_DATA):
            opener = _OPENERS.get(name.removeprefix(_DATA))
            return (source.tell(), size, opener) if opener else None
        source.seek(size + size % 2, 1)
    return None
