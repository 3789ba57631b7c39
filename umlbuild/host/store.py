"""The store: `cache/<stage>/<key>/`, immutable, complete or absent.

An entry is filled in a scratch directory beside it, gets a manifest, is flushed and renamed into
place. A kill at any moment leaves scratch (removed by the next build), never a wrong entry.
Failures are never stored. The manifest (`.manifest.json`) lists the top-level names: for a file its
size and sha256, for a directory only that it is one (trees of 80 000 sources are not hashed again).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import Cancelled, HostError, StepFailed
from umlbuild.host import process

MANIFEST = ".manifest.json"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by umlbuild; can be deleted at any time.\n"


class Store:
    """The entries below one cache directory; `UMLBUILD_CACHE` or `cache/` beside the project."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, stage: str, key: str) -> Path:
        """Where the entry of a key is, or would be."""
        return self.root / stage / key

    def log(self, stage: str, key: str) -> Path:
        """The log file of a step."""
        return self.root / "logs" / f"{stage}-{key[:12]}.log"

    def has(self, stage: str, key: str) -> bool:
        """Whether the entry is there and looks whole: manifest, every name, every file's size."""
        entry = self.path(stage, key)
        try:
            names = json.loads((entry / MANIFEST).read_bytes())
            for name, fact in names.items():
                info = (entry / name).lstat()
                if fact["type"] == "file" and info.st_size != fact["size"]:
                    return False
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        return True

    def verify(self, stage: str, key: str) -> list[str]:
        """The names of an entry whose bytes are not what the manifest says; [] if all is well."""
        entry = self.path(stage, key)
        if not self.has(stage, key):
            return [MANIFEST]
        names = json.loads((entry / MANIFEST).read_bytes())
        return [
            name for name, fact in names.items()
            if fact["type"] == "file" and digest.of_file(entry / name) != fact["sha256"]
        ]  # fmt: skip

    @contextlib.contextmanager
    def filling(self, stage: str, key: str) -> Iterator[Path]:
        """An empty directory to fill; becomes the entry when the block ends well, is removed when not."""
        parent = self.root / stage
        _make(parent, self.root)
        scratch = Path(tempfile.mkdtemp(prefix=f".{key[:12]}.", dir=parent))
        scratch.chmod(0o755)
        try:
            yield scratch
            _seal(scratch)
            self._replace(scratch, parent / key)
        finally:
            remove(scratch)

    @contextlib.contextmanager
    def working(self, name: str) -> Iterator[Path]:
        """A scratch directory for a step's own use, removed at its end."""
        parent = self.root / "work"
        _make(parent, self.root)
        scratch = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=parent))
        scratch.chmod(0o755)
        try:
            yield scratch
        finally:
            remove(scratch)

    @contextlib.contextmanager
    def locked(
        self, stage: str, key: str, timeout_s: float = 3600, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Hold the lock of one key, so that two builds in one cache do not make the same entry twice.

        The kernel drops the lock of a process that died, so a lock is never stale. `waiting` is called
        (again and again) while another build holds it.

        Raises: StepFailed when another build holds it longer than `timeout_s`, Cancelled.
        """
        parent = self.root / "locks"
        _make(parent, self.root)
        path = parent / f"{stage}-{key[:32]}"
        with path.open("a") as file:
            deadline = time.monotonic() + timeout_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if process.is_cancelled():
                        raise Cancelled(f"{stage}: not started, the build is ending") from None
                    if time.monotonic() > deadline:
                        raise StepFailed(
                            f"{stage}: another build has held the lock for {timeout_s:g} s",
                            f"end that build (lsof {path}) and run again",
                        ) from None
                    waiting()
                    time.sleep(0.1)
            yield

    def discard(self, stage: str, key: str) -> bool:
        """Remove one entry, first out of its place, so that nobody sees half of it; False: there was none."""
        entry = self.path(stage, key)
        aside = entry.with_name(f".{key[:12]}.removed.{os.getpid()}")
        with self.locked(stage, key):
            try:
                entry.rename(aside)
            except FileNotFoundError:
                return False
        remove(aside)
        return True

    def sweep(self) -> None:
        """Remove the scratch that killed builds left: older than a day, or of no living process' build."""
        limit = time.time() - 86_400
        for pattern in ("work/*", "*/.*.*"):
            for scratch in self.root.glob(pattern):
                if scratch.is_dir() and not scratch.is_symlink() and scratch.stat().st_mtime < limit:
                    remove(scratch)

    def _replace(self, scratch: Path, entry: Path) -> None:
        if entry.exists():  # damaged: put it aside first, rename(2) does not replace full directories
            aside = entry.with_name(f".{entry.name[:12]}.damaged.{os.getpid()}")
            entry.rename(aside)
            scratch.rename(entry)
            remove(aside)
        else:
            scratch.rename(entry)
        _sync(entry.parent)


def remove(path: Path) -> None:
    """Remove a directory tree, also one with unwritable directories in it; absent is fine."""

    def force(_function: object, name: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, 0o700)
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)

    if path.exists() and not path.is_symlink():
        shutil.rmtree(path, onerror=force)


def _make(directory: Path, root: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tag = root / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(_TAG)
    except OSError as error:
        raise HostError(
            f"{directory}: cannot write the cache: {error.strerror}",
            "set UMLBUILD_CACHE to a writable directory",
        ) from error


def _seal(entry: Path) -> None:
    """Write the manifest and flush every top-level file to the disk."""
    names: dict[str, dict[str, object]] = {}
    with ThreadPoolExecutor(1) as disk:  # it writes while we read
        flushed = []
        for path in sorted(entry.iterdir()):
            info = path.lstat()
            if stat.S_ISREG(info.st_mode):
                flushed.append(disk.submit(_sync, path))
                names[path.name] = {"type": "file", "size": info.st_size, "sha256": digest.of_immutable_file(path)}
            else:
                names[path.name] = {"type": "dir" if stat.S_ISDIR(info.st_mode) else "other"}
        for row in flushed:
            row.result()
    manifest = entry / MANIFEST
    manifest.write_bytes(digest.canonical_json(names))
    _sync(manifest)
    _sync(entry)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
