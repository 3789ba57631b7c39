"""The store: `cache/<stage>/<key>/`, immutable, complete or absent.

An entry is filled in a scratch directory beside it, gets a manifest and is renamed into place. A kill at any
moment leaves scratch (removed by the next build), never a wrong entry.
Failures are never stored. The manifest (`.manifest.json`) lists the top-level names: for a file its
size and sha256 (of a disk image its `pages`), for a directory its digest if it is small (trees of 80 000
sources are not hashed again).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import Cancelled, HostError, StepFailed
from umlbuild.host import checked, flock, process, shared

MANIFEST = ".manifest.json"
_OLD_S = 86_400
_NEW_S = 2.0
"""Seconds; scratch that is as new may not be held yet."""
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by umlbuild; can be deleted at any time.\n"


class Store:
    """The entries below one cache directory; `UMLBUILD_CACHE` or `cache/` beside the project."""

    def __init__(self, root: Path, shared: Sequence[Path] = ()) -> None:
        self.root = root
        self.shared = tuple(shared)
        """Caches of others, which are looked at after this one and never written to."""

    @classmethod
    def at(cls, root: Path) -> Store:
        """The store of a build: with the caches that UMLBUILD_CACHE_SHARED names."""
        return cls(root, shared.caches(os.environ, root))

    def path(self, stage: str, key: str) -> Path:
        """Where this cache's own entry of a key is, or would be."""
        return self.root / stage / key

    def find(self, stage: str, key: str) -> Path | None:
        """Where an entry is that looks whole: here, or in a shared cache."""
        if is_whole(self.path(stage, key)):
            return self.path(stage, key)
        for root in self.shared:
            entry = root / stage / key
            if is_whole(entry) and shared.is_sane(root, entry):
                return entry
        return None

    def log(self, stage: str, key: str) -> Path:
        """The log file of a step."""
        return self.root / "logs" / f"{stage}-{key[:12]}.log"

    def has(self, stage: str, key: str) -> bool:
        """Whether the entry is there and looks whole: manifest, every name, every file's size."""
        return self.find(stage, key) is not None

    def verify(self, stage: str, key: str) -> list[str]:
        """The names of an entry whose bytes are not what the manifest says; [] if all is well."""
        return self._damage(stage, key, again=True)

    def damage(self, stage: str, key: str) -> list[str]:
        """As `verify`, but files that nobody has written to since they were verified are not read (see `checked`)."""
        return self._damage(stage, key, again=False)

    def _damage(self, stage: str, key: str, *, again: bool) -> list[str]:
        entry = self.find(stage, key)
        if entry is None:
            return [MANIFEST]
        try:
            facts = checked.facts_of(entry, MANIFEST)
            names = json.loads((entry / MANIFEST).read_bytes())
            known = checked.recorded(self.root, key)
            if again and known == facts:  # the big directories are as they were, whatever comes of the rest
                known = checked.Facts(facts.place, "", facts.big)
            found = checked.damage(entry, names, facts, known)
        except FileNotFoundError:  # removed, or made anew, just now
            return [] if self.has(stage, key) else [MANIFEST]
        if not found and known != facts:
            checked.record(self.root, key, facts)
        return found

    @contextlib.contextmanager
    def filling(self, stage: str, key: str) -> Iterator[Path]:
        """An empty directory to fill; becomes the entry when the block ends well, is removed when not."""
        parent = self.root / stage
        _make(parent, self.root)
        with _scratch(parent, f".{key[:12]}.") as scratch:
            try:
                yield scratch
                facts = checked.facts_of(scratch, MANIFEST)
                seal(scratch)
                self._replace(scratch, parent / key)
                checked.record(self.root, key, facts)
            except BaseException:
                digest.forget_files()
                raise

    @contextlib.contextmanager
    def working(self, name: str) -> Iterator[Path]:
        """A scratch directory for a step's own use, removed at its end."""
        parent = self.root / "work"
        _make(parent, self.root)
        with _scratch(parent, f"{name}.") as scratch:
            yield scratch

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

        def wait() -> None:
            if process.is_cancelled():
                raise Cancelled(f"{stage}: not started, the build is ending")
            waiting()

        with path.open("a") as file:
            if not flock.got(file, timeout_s=timeout_s, poll_s=0.1, waiting=wait):
                raise StepFailed(
                    f"{stage}: another build has held the lock for {timeout_s:g} s",
                    f"end that build (lsof {path}) and run again",
                )
            yield

    def discard(self, stage: str, key: str) -> bool:
        """Remove one entry, first out of its place, so that nobody sees half of it; False: there was none."""
        with self.locked(stage, key):
            aside = self._aside(stage, key)
        return _removed(aside)

    def discard_damaged(self, stage: str, key: str) -> bool:
        """As `discard`, unless another build has made it anew meanwhile."""
        with self.locked(stage, key):
            if self.has(stage, key) and not self.damage(stage, key):
                return False
            aside = self._aside(stage, key)
        return _removed(aside)

    def discard_if_free(self, stage: str, key: str) -> bool:
        """As `discard`, but without waiting: False if the key's lock is held, or there is no entry."""
        return _removed(self.put_aside(stage, key))

    def put_aside(self, stage: str, key: str) -> Path | None:
        """Rename an entry out of its place, to where `remove` can take its time; None: it is locked or not there."""
        with self.try_locked(stage, key) as locked:
            return self._aside(stage, key) if locked else None

    @contextlib.contextmanager
    def try_locked(self, stage: str, key: str) -> Iterator[bool]:
        """The lock of one key, if nobody holds it: yields whether it is held now."""
        parent = self.root / "locks"
        _make(parent, self.root)
        with (parent / f"{stage}-{key[:32]}").open("a") as file:
            yield flock.got(file)

    def used(self, stage: str, key: str) -> None:
        """Stamp an entry as used now, by its manifest's mtime; one in another's cache is held while we live."""
        with contextlib.suppress(OSError):
            os.utime(self.path(stage, key) / MANIFEST)
            return
        for root in self.shared:
            shared.hold(root, stage, key)

    def sweep(self) -> None:
        """Remove the scratch that killed builds left: what nobody holds, or is older than a day."""
        now = time.time()
        for pattern in ("work/*", "*/.*.*"):
            for scratch in self.root.glob(pattern):
                with contextlib.suppress(FileNotFoundError):
                    if not scratch.is_dir() or scratch.is_symlink():
                        continue
                    age = now - scratch.stat().st_mtime
                    if age > _OLD_S or (age > _NEW_S and _is_let_go(scratch)):
                        remove(scratch)

    def _aside(self, stage: str, key: str) -> Path | None:
        """An entry, whose lock is held, out of its place; None: there is none."""
        entry = self.path(stage, key)
        aside = entry.with_name(f".{key[:12]}.removed.{os.getpid()}")
        try:
            return entry.rename(aside)
        except FileNotFoundError:
            return None

    def _replace(self, scratch: Path, entry: Path) -> None:
        if entry.exists():  # damaged: put it aside first, rename(2) does not replace full directories
            aside = entry.with_name(f".{entry.name[:12]}.damaged.{os.getpid()}")
            entry.rename(aside)
            scratch.rename(entry)
            remove(aside)
            digest.forget_files()
        else:
            scratch.rename(entry)


@contextlib.contextmanager
def _scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A new directory, held while we live (where the file system has locks) and removed at the end."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            flock.got(fd, flock.SHARED)
        path.chmod(0o755)
        yield path
    finally:
        os.close(fd)
        remove(path)


def _is_let_go(scratch: Path) -> bool:
    """Whether its maker is dead: the kernel drops a lock with its holder."""
    fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return flock.got(fd)
    except OSError:  # no locks here
        return False
    finally:
        os.close(fd)


def _removed(aside: Path | None) -> bool:
    """Remove what was put aside; False: nothing was."""
    if aside is None:
        return False
    remove(aside)
    digest.forget_files()
    return True


def remove(path: Path) -> None:
    """Remove a directory tree, also one with unwritable directories in it; absent is fine."""

    def force(_function: object, name: str | Path, _error: object) -> None:
        with contextlib.suppress(OSError):
            if os.fspath(name) != os.fspath(path):  # what is above the tree is not ours
                os.chmod(os.path.dirname(name), 0o700)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, 0o700)
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)

    if path.exists() and not path.is_symlink():
        shutil.rmtree(path, onerror=force)


def is_whole(entry: Path) -> bool:
    """Whether an entry has its manifest, every name and every file's size."""
    try:
        names = json.loads((entry / MANIFEST).read_bytes())
        for name, fact in names.items():
            info = (entry / name).lstat()
            if fact["type"] == "file" and info.st_size != fact["size"]:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _make(directory: Path, root: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tag = root / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(_TAG)
    except OSError as error:
        raise HostError(
            f"{directory}: cannot write the cache: {error.strerror}",
            f"set UMLBUILD_CACHE to a writable directory (and UMLBUILD_CACHE_SHARED={root} to use what is there)",
        ) from error


def seal(entry: Path) -> None:
    """Write the manifest. Nothing waits for the disk (see `checked`)."""
    names: dict[str, dict[str, object]] = {}
    for path in sorted(entry.iterdir()):
        info = path.lstat()
        if path.name == MANIFEST:  # sealed before, to be compared
            continue
        if stat.S_ISREG(info.st_mode):
            content = digest.of_immutable_file(path)
            names[path.name] = {"type": "file", "size": info.st_size, digest.kind_of(path.name): content}
        elif stat.S_ISDIR(info.st_mode):
            names[path.name] = {"type": "dir"}
            if _is_small(path):
                names[path.name]["tree"] = digest.of_tree(path)
        else:
            names[path.name] = {"type": "other"}
    manifest = entry / MANIFEST
    manifest.write_bytes(digest.canonical_json(names))
    manifest.chmod(0o644)  # whatever our umask: others may read this cache


def _is_small(tree: Path) -> bool:
    """Whether a tree has few enough files to be hashed."""
    count = 0
    for _, _, files in os.walk(tree):
        count += len(files)
        if count > checked.BIG:
            return False
    return True
