"""What was fetched, kept by content below one directory and shared by all recipes: `<sha256[:2]>/<sha256><suffix>`.

A file is looked for at several places in order: a mirror may have dropped a version that a lock names, another
mirror or a snapshot archive may still have it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import Cancelled, FetchError, StepFailed
from umlbuild.host import fetch, offline
from umlbuild.host.mirrors import SNAPSHOT, urls_of
from umlbuild.specs.packages import DebPin


@dataclass(frozen=True)
class Downloads:
    """The kept downloads of one cache."""

    root: Path
    _dead: set[str] = field(default_factory=set, compare=False)
    """Bases that did not answer: not asked again while others are left."""
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    def path(self, sha256: str, suffix: str) -> Path:
        """Where a file is kept, or would be."""
        return self.root / sha256[:2] / f"{sha256}{suffix}"

    def package(self, pin: DebPin, mirrors: Mapping[str, str], session: fetch.Session | None = None) -> Path:
        """A package, fetched if it is not there whole.

        Raises: FetchError (gone everywhere, offline, other bytes), StepFailed (no mirror for its archive).
        """
        kept = self.path(pin.sha256, ".deb")
        if _is_whole(kept, pin.sha256, pin.size):
            return kept
        offline.refuse(f"{pin.name} {pin.version} is not among the downloads of this cache; fetching it")
        bases = urls_of(mirrors.get(pin.archive, ""))
        if not bases:
            raise StepFailed(
                f"{pin.name} {pin.version}: no mirror is known for Debian's {pin.archive} archive",
                "set UMLBUILD_SECURITY_MIRROR" if pin.archive == "security" else "set UMLBUILD_MIRROR",
            )
        problems: list[FetchError] = []
        for base in self._order(bases):
            try:
                url = base + urllib.parse.quote(pin.path, safe="/+~:")
                fetch.download(url, kept, sha256=pin.sha256, size=pin.size, session=session)
                return kept
            except Cancelled:
                raise
            except FetchError as error:
                problems.append(error)
                if isinstance(error, fetch.Unreachable):
                    with self._lock:
                        self._dead.add(base)
        raise _missing(pin, problems)

    def tarball(self, url: str, sha256: str, suffix: str, progress: fetch.Progress | None = None) -> Path:
        """A tarball, fetched if it is not there whole. Raises: FetchError."""
        kept = self.path(sha256, suffix)
        if not _is_whole(kept, sha256):
            offline.refuse(f"{url} is not among the downloads of this cache; fetching it")
            fetch.download(url, kept, sha256=sha256, progress=progress)
        return kept

    def _order(self, bases: Sequence[str]) -> list[str]:
        """The bases to ask; those that did not answer come last."""
        with self._lock:
            return sorted(bases, key=lambda base: base in self._dead)


def link(kept: Path, target: Path) -> None:
    """A second name for the same file, or a copy where there cannot be one."""
    try:
        os.link(kept, target)
    except OSError:
        fd, name = tempfile.mkstemp(dir=target.parent)
        os.close(fd)
        shutil.copyfile(kept, name)
        os.chmod(name, 0o644)
        os.rename(name, target)


def _is_whole(kept: Path, sha256: str, size: int | None = None) -> bool:
    """Whether a kept download is there with the right bytes (a disk may have damaged it since)."""
    try:
        return (size is None or kept.stat().st_size == size) and digest.of_file(kept) == sha256
    except FileNotFoundError:
        return False


def _missing(pin: DebPin, problems: Sequence[FetchError]) -> FetchError:
    """What it means that no place gave the package."""
    if all(isinstance(problem, fetch.Gone) for problem in problems):
        tried = "\n".join(f"  | {problem.message}" for problem in problems)
        return FetchError(
            f"{pin.name} {pin.version}: the mirror does not have it any more:\n{tried}",
            f"take the version of today: umlbuild lock RECIPE --update {pin.name} (without a name: all packages); "
            f"or name an archive that keeps old ones in {SNAPSHOT}",
        )
    worst = next(problem for problem in problems if not isinstance(problem, fetch.Gone))
    if len(problems) == 1:
        worst.hint = "check the network and the proxy, or name another mirror with UMLBUILD_MIRROR"
        return worst
    rows = "\n".join(f"  | {problem.message}" for problem in problems)
    return FetchError(
        f"{pin.name} {pin.version}: no place gives it:\n{rows}",
        "check the network and the proxy, or name another mirror with UMLBUILD_MIRROR",
    )
