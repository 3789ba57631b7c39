"""Which entries a running build counts on: `builds/<pid>.<random>`, one key a line, locked while the build lives.

A build registers its keys before it looks at the store; the collector holds `locks/gc` from its look at these files
until the entry is out of its place. So either the collector sees the key, or the build sees that the entry is gone.
The kernel drops the lock of a build that died: its file is stale then, and removed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from umlbuild.errors import StepFailed
from umlbuild.host import flock
from umlbuild.host.store import Store

_WAIT_S = 30.0

_held: list[int] = []
"""Descriptors that stay open, and so locked, until the process ends."""


def register(store: Store, keys: Iterable[str]) -> None:
    """Say until the end of this process that these keys are in use; where the cache cannot be written, nothing."""
    with contextlib.suppress(OSError):
        builds = store.root / "builds"
        builds.mkdir(parents=True, exist_ok=True)
        with _look(store, flock.SHARED):
            fd, name = tempfile.mkstemp(prefix=f"{os.getpid()}.", dir=builds)
            flock.got(fd, flock.SHARED)
            os.fchmod(fd, 0o644)
            os.write(fd, "".join(f"{key}\n" for key in keys).encode())
            _held.append(fd)
            _forget_at_exit(Path(name))


@contextlib.contextmanager
def collecting(store: Store) -> Iterator[frozenset[str]]:
    """The keys in use; no build can begin to count on others within."""
    with _look(store, flock.ALONE):
        yield frozenset(_keys(store))


def _keys(store: Store) -> Iterator[str]:
    for path in (store.root / "builds").glob("*.*"):
        try:
            with path.open("rb") as file:
                if flock.got(file):
                    path.unlink(missing_ok=True)
                else:
                    yield from file.read().decode().split()
        except FileNotFoundError:
            continue


@contextlib.contextmanager
def _look(store: Store, how: int) -> Iterator[None]:
    """Hold the short lock between builds that begin and the collector."""
    locks = store.root / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    fd = os.open(locks / "gc", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not flock.got(fd, how, timeout_s=_WAIT_S, poll_s=0.005):
            # No OSError: a build that is not registered could lose what it counts on.
            raise StepFailed(f"{locks / 'gc'}: held for {_WAIT_S:g} s", f"end who holds it (lsof {locks / 'gc'})")
        yield
    finally:
        os.close(fd)


def _forget_at_exit(path: Path) -> None:
    import atexit

    atexit.register(lambda: path.unlink(missing_ok=True))
