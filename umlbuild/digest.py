"""Digests: sha256 of canonical JSON, of files (holes are not read), of disk images and of directory trees.

No path, owner or time enters a digest: two checkouts in two directories have equal digests.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Literal, NewType

Sha256 = NewType("Sha256", str)
"""64 lower-case hexadecimal digits."""

Kind = Literal["sha256", "pages"]
"""What a digest is of: all bytes of a file, or what a disk image holds."""

Key = NewType("Key", str)
"""The sha256 over all that a step is given; names its entry in the store."""

CHUNK = 1 << 20
"""Bytes of a disk image that are told together."""

_BLOCK = 1 << 20
_ZEROS = bytes(_BLOCK)
_PAGE = 4096
_ZERO_PAGE = bytes(_PAGE)
_RUN = struct.Struct(">QQ")


def canonical_json(value: object) -> bytes:
    """The one spelling of JSON data: sorted keys, no white space, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def of_bytes(data: bytes) -> Sha256:
    """The sha256 of some bytes."""
    return Sha256(hashlib.sha256(data).hexdigest())


def of_json(value: object) -> Sha256:
    """The sha256 of the canonical JSON of `value`."""
    return of_bytes(canonical_json(value))


def of_file(path: Path) -> Sha256:
    """The sha256 of a file's content, as sha256sum prints it; holes are hashed but never read."""
    sha = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        for start, end in extents(file.fileno(), size):
            _hash_zeros(sha, start - at)
            file.seek(start)
            while start < end:
                block = file.read(min(_BLOCK, end - start))
                if not block:
                    break
                sha.update(block)
                start += len(block)
            at = end
        _hash_zeros(sha, size - at)
    return Sha256(sha.hexdigest())


def of_image(path: Path) -> Sha256:
    """The digest of what a disk image holds: `of_chunks` of its chunks that are not all zeros.

    The same wherever the holes are, and no work for zeros: sha256sum takes a second for 2 GiB of them.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        chunks = ((at, of_chunk(os.pread(file.fileno(), CHUNK, at))) for at in chunks_of(file.fileno(), size))
        return of_chunks(size, {at: told for at, told in chunks if told is not None})


def chunks_of(fd: int, size: int) -> Iterator[int]:
    """Where the chunks of a file begin that hold data."""
    at = 0
    for start, end in extents(fd, size):
        at = max(at, start // CHUNK * CHUNK)
        while at < end:
            yield at
            at += CHUNK


def of_chunk(block: bytes) -> Sha256 | None:
    """The sha256 over, for each run of pages (4096 bytes) that are not all zeros, its offset and length, 8 bytes each,
    most significant first, and the run; None if there is none.
    """
    sha = hashlib.sha256()
    something = False
    for first, last in _runs(block):
        sha.update(_RUN.pack(first, last - first))
        sha.update(memoryview(block)[first:last])
        something = True
    return Sha256(sha.hexdigest()) if something else None


def of_chunks(size: int, chunks: Mapping[int, Sha256]) -> Sha256:
    """The digest of an image of `size` bytes: of JSON, its size and (offset, digest) of each chunk in order."""
    return of_json([size, sorted(chunks.items())])


def _runs(block: bytes) -> Iterator[tuple[int, int]]:
    """The (start, end) of neighbouring pages that are not zeros."""
    start = None
    for at in range(0, len(block), _PAGE):
        page = block[at : at + _PAGE]
        if page != _ZERO_PAGE[: len(page)]:
            start = at if start is None else start
        elif start is not None:
            yield start, at
            start = None
    if start is not None:
        yield start, len(block)


def kind_of(name: str) -> Kind:
    """How a file of this name is told: disk images by their `pages`."""
    return "pages" if name.endswith(".img") else "sha256"


def kind_in(facts: Container[object]) -> Kind:
    """Which of them a manifest's row has."""
    return "pages" if "pages" in facts else "sha256"


def of_content(path: Path, kind: Kind | None = None) -> Sha256:
    """`of_image` or `of_file`; None: as its name says."""
    return of_image(path) if (kind or kind_of(path.name)) == "pages" else of_file(path)


_immutable: dict[tuple[int, int, int, int], Sha256] = {}


def of_immutable_file(path: Path) -> Sha256:
    """As `of_content`, for files that nobody writes to any more: a hard link of a known one is not read again.

    Only for what lies in the store or is about to: a sparse image of some GiB is hashed once in a build,
    not once for each entry that it is linked into.
    """
    key = _facts(path)
    if key not in _immutable:
        _immutable[key] = of_content(path)
    return _immutable[key]


def _facts(path: Path) -> tuple[int, int, int, int]:
    info = path.stat()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def forget_files() -> None:
    """Forget what `of_immutable_file` knows; to be called when files of the store were removed.

    A new file may get the inode of a removed one, and clamped times and sizes are often equal, too.
    """
    _immutable.clear()


def remember(path: Path, content: Sha256) -> None:
    """What `of_immutable_file` will answer for a file whose digest is known, and whose times are as they will stay."""
    _immutable[_facts(path)] = content


def of_tree(path: Path) -> Sha256:
    """The digest of a directory: names, content, symlink targets and executable bits; `.git` is left out."""
    rows: list[tuple[str, str, str]] = []
    for root, dirs, files in os.walk(path):
        dirs[:] = sorted(name for name in dirs if name != ".git")
        for name in sorted([*files, *dirs]):
            entry = Path(root, name)
            relative = entry.relative_to(path).as_posix()
            mode = entry.lstat().st_mode
            if stat.S_ISLNK(mode):
                rows.append((relative, "link", os.readlink(entry)))
            elif stat.S_ISDIR(mode):
                rows.append((relative, "dir", ""))
            elif stat.S_ISREG(mode):
                kind = "exec" if mode & 0o100 else "file"
                rows.append((relative, kind, of_file(entry)))
    return of_json(sorted(rows))


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The (start, end) byte ranges of a file that hold data; the whole file where holes are unknown."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            yield at, size
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def _hash_zeros(sha: hashlib._Hash, count: int) -> None:
    while count > 0:
        sha.update(_ZEROS[:count] if count < _BLOCK else _ZEROS)
        count -= _BLOCK
