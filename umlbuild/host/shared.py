"""Caches of others, read-only: `UMLBUILD_CACHE_SHARED=/dir[:/dir…]`, looked at after one's own.

An entry there is used in place. It must be what only the cache's owner (or root) could have made: a directory, its
manifest and its files, none of them a link, none writable by anybody else. Who names a cache trusts its owner.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from umlbuild.host import flock

_held: list[int] = []
"""Descriptors of locks that stay until the process ends."""


def caches(environ: Mapping[str, str], own: Path) -> tuple[Path, ...]:
    """The caches that may be used; of others a line says why not."""
    return _caches(environ.get("UMLBUILD_CACHE_SHARED", ""), own)


@lru_cache(maxsize=8)
def _caches(words: str, own: Path) -> tuple[Path, ...]:
    found: list[Path] = []
    for word in words.split(":"):
        root = Path(word)
        if not word or (root.exists() and own.exists() and root.samefile(own)):
            continue
        if problem := _problem(root):
            sys.stderr.write(f"UMLBUILD_CACHE_SHARED: {word} is not used: {problem}\n")
        else:
            found.append(root)
    return tuple(found)


def is_sane(root: Path, entry: Path) -> bool:
    """Whether nobody but the owner of the cache could have made or changed an entry."""
    try:
        owners = {0, root.stat().st_uid}
        if not all(_is_owners(path.lstat(), owners) and path.is_dir() for path in (entry.parent, entry)):
            return False
        with os.scandir(entry) as rows:
            return all(row.is_symlink() or _is_owners(row.stat(follow_symlinks=False), owners) for row in rows)
    except OSError:
        return False


def hold(root: Path, stage: str, key: str) -> None:
    """Keep the owner's collector from removing an entry while this process lives, if its lock can be opened."""
    with contextlib.suppress(OSError):
        fd = os.open(root / "locks" / f"{stage}-{key[:32]}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        if flock.got(fd, flock.SHARED):
            _held.append(fd)
        else:
            os.close(fd)


def _problem(root: Path) -> str:
    try:
        info = root.stat()
    except OSError as error:
        return error.strerror or "it cannot be read"
    if not root.is_absolute():
        return "its path is not absolute"
    if not stat.S_ISDIR(info.st_mode):
        return "it is no directory"
    if info.st_mode & 0o022:
        return "others than its owner can write to it"
    return ""


def _is_owners(info: os.stat_result, owners: set[int]) -> bool:
    return info.st_uid in owners and not stat.S_ISLNK(info.st_mode) and not info.st_mode & 0o022
