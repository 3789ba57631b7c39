"""Publishing: `dist/NAME` becomes a bundle entry of the store, in one rename.

The new directory is filled beside the old one and exchanged with it (renameat2, RENAME_EXCHANGE); so
whoever looks, at any moment and after any kill, finds the old bundle whole or the new one whole. Where the
file system cannot exchange, the old one is renamed aside first and for that moment (two renames) there is
none; a build that is killed just then leaves none, and the next one publishes it. Scratch of killed
builds is removed by the next publish.

Source: rename(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from umlbuild.errors import StepFailed
from umlbuild.host import flock, sparse, store

_MANIFEST = "manifest.toml"
SUMS = "SHA256SUMS"
"""Stands in a release and not in a bundle."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_LINKED_FROM = 1 << 20
"""Bytes; smaller files are copied, so that editing dist/NAME/run does not edit the store."""

_LOCK_S = 60.0


def publish(
    entry: Path, dist: Path, *, same: Callable[[], bool] | None = None, allow: Callable[[], None] = lambda: None
) -> bool:
    """Make `dist` (a directory that umlbuild owns) the bundle (or release) in `entry`; False if it is that already.

    `same` says that instead of `is_same`, where sizes and times do not tell. `allow` is called just before, when nobody
    else can publish there any more; what it raises keeps `dist` as it is.

    Raises: StepFailed (`dist` is something else, another build publishes for too long), OSError.
    """
    dist.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(dist):
        if same() if same is not None else is_same(entry, dist):
            return False
        if dist.is_symlink() or (dist.exists() and not _is_alike(entry, dist)):
            if not _is_empty(dist):
                what = "a release" if (entry / SUMS).exists() else "a bundle"
                raise StepFailed(
                    f"publishing {dist}: what stands there is not {what}", f"move {dist} out of the way"
                )
            dist.rmdir()
        allow()
        _sweep(dist)
        scratch = Path(tempfile.mkdtemp(prefix=_prefix(dist), dir=dist.parent))
        try:
            scratch.chmod(0o755)
            _fill(entry, scratch)
            _swap(scratch, dist)
        finally:
            store.remove(scratch)
    return True


def is_same(entry: Path, dist: Path) -> bool:
    """Whether `dist` is this bundle: equal manifests, and every file there with its size, mode and mtime."""
    try:
        if (dist / _MANIFEST).read_bytes() != (entry / _MANIFEST).read_bytes():
            return False
        names = _names(entry)
        if sorted(os.listdir(dist)) != names or dist.is_symlink():
            return False
        return all(_facts(dist / name) == _facts(entry / name) for name in names)
    except OSError:
        return False


def _is_alike(entry: Path, dist: Path) -> bool:
    """Whether both are bundles, or both releases: `hello` of version 1 and `hello-1` have one name in dist/."""
    return (dist / _MANIFEST).is_file() and (dist / SUMS).exists() == (entry / SUMS).exists()


def _facts(path: Path) -> tuple[int, int, int]:
    info = path.lstat()
    return info.st_size, info.st_mode, int(info.st_mtime)


def _names(entry: Path) -> list[str]:
    return sorted(name for name in os.listdir(entry) if name != store.MANIFEST)


def _fill(entry: Path, scratch: Path) -> None:
    for name in _names(entry):
        source = entry / name
        if source.is_dir():
            shutil.copytree(source, scratch / name, symlinks=True)
        elif source.stat().st_size >= _LINKED_FROM:
            sparse.link_or_copy(source, scratch / name)
        else:
            sparse.copy(source, scratch / name)
    for path in sorted(scratch.rglob("*"), reverse=True):  # what takes the old one's place is on the disk
        if not path.is_symlink():
            _sync(path)
    _sync(scratch)


def _swap(scratch: Path, dist: Path) -> None:
    """`dist` becomes `scratch`, which holds the old one afterwards (or is gone, if there was none)."""
    if not dist.exists():
        scratch.rename(dist)
    elif not _exchange(scratch, dist):
        aside = Path(tempfile.mkdtemp(prefix=_prefix(dist), dir=dist.parent))
        dist.rename(aside)  # an empty directory may be replaced
        scratch.rename(dist)
        aside.rename(scratch)
    _sync(dist.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically; False where the file system or the C library cannot."""
    import ctypes  # slow to import, and seldom needed

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(other))


@contextlib.contextmanager
def _only_one(dist: Path) -> Iterator[None]:
    """Hold the lock of the directory above; the kernel drops it when we die."""
    fd = os.open(dist.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not flock.got(fd, timeout_s=_LOCK_S):
            raise StepFailed(f"{dist}: another build publishes it for {_LOCK_S:g} s")
        yield
    finally:
        os.close(fd)


def _sweep(dist: Path) -> None:
    """Remove what killed builds left; nobody else is at it while we hold the lock."""
    for name in os.listdir(dist.parent):
        if name.startswith(_prefix(dist)):
            store.remove(dist.parent / name)


def _prefix(dist: Path) -> str:
    return f".{dist.name}~"


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not os.listdir(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
