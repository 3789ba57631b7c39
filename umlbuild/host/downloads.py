"""What was fetched, kept by content below one directory and shared by all recipes: `<sha256[:2]>/<sha256><suffix>`.

A file is looked for at several places in order: a mirror may have dropped a version that a lock names, another
mirror or a snapshot archive may still have it. A host that does not answer is left out from then on: it may be many of
these places (a snapshot archive is one for each moment), and to wait for each of them takes minutes.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import Cancelled, FetchError, StepFailed
from umlbuild.host import fetch, offline
from umlbuild.host.mirrors import SNAPSHOT, urls_of
from umlbuild.specs.packages import DebPin

Note = Callable[[str], None]


@functools.cache
def downloads_of(root: Path) -> Downloads:
    """The kept downloads below a directory: one object for all steps of a build, so that all know of a dead host."""
    return Downloads(root)


@dataclass(frozen=True)
class Downloads:
    """The kept downloads of one cache."""

    root: Path
    _dead: dict[str, str] = field(default_factory=dict, compare=False)
    """Host (with its port) → why it is not asked any more: it did not answer, in any attempt."""
    _frail: set[str] = field(default_factory=set, compare=False)
    """Hosts that broke off in all attempts: asked after the others."""

    def path(self, sha256: str, suffix: str) -> Path:
        """Where a file is kept, or would be."""
        return self.root / sha256[:2] / f"{sha256}{suffix}"

    def package(
        self, pin: DebPin, mirrors: Mapping[str, str], session: fetch.Session | None = None,
        note: Note = lambda _text: None,
    ) -> Path:
        """A package, fetched if it is not there whole; `note` is told what is waited for.

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
            host, url = _host(base), base + urllib.parse.quote(pin.path, safe="/+~:")
            if host in self._dead:
                problems.append(fetch.Unreachable(f"{host}: did not answer before: {self._dead[host]}"))
                continue
            try:
                again = functools.partial(_again, note, host)
                fetch.download(url, kept, sha256=pin.sha256, size=pin.size, session=session, again=again)
                return kept
            except Cancelled:
                raise
            except FetchError as error:
                problems.append(error)
                if isinstance(error, fetch.Unreachable):
                    note(f"{host} does not answer, it is not asked any more")
                    self._dead[host] = error.message.removeprefix(f"{url}: ")
                elif isinstance(error, fetch.Broken):
                    self._frail.add(host)
        raise _missing(pin, problems)

    def tarball(
        self, url: str, sha256: str, suffix: str, progress: fetch.Progress | None = None,
        note: Note = lambda _text: None,
    ) -> Path:
        """A tarball, fetched if it is not there whole; `note` is told what is waited for. Raises: FetchError."""
        kept = self.path(sha256, suffix)
        if not _is_whole(kept, sha256):
            offline.refuse(f"{url} is not among the downloads of this cache; fetching it")
            again = functools.partial(_again, note, _host(url))
            fetch.download(url, kept, sha256=sha256, progress=progress, again=again)
        return kept

    def _order(self, bases: Sequence[str]) -> list[str]:
        """The bases to ask; those of hosts that broke off come last."""
        return sorted(bases, key=lambda base: _host(base) in self._frail)


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


def _host(url: str) -> str:
    """The host and the port in a URL; "" for a file."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


def _again(note: Note, host: str, attempt: int, attempts: int) -> None:
    note(f"asking {host} again, {attempt} of {attempts}")


def _missing(pin: DebPin, problems: Sequence[FetchError]) -> FetchError:
    """What it means that no place gave the package. Where one has dropped it, the version of today is a way out."""
    what = f"{pin.name} {pin.version}"
    today = f"take the version of today: umlbuild lock RECIPE --update {pin.name} (without a name: all packages)"
    network = "check the network and the proxy, or name another mirror with UMLBUILD_MIRROR"
    tried = "\n".join(dict.fromkeys(f"  | {problem.message}" for problem in problems))
    gone = [isinstance(problem, fetch.Gone) for problem in problems]
    if all(gone):
        return FetchError(
            f"{what}: the mirror does not have it any more:\n{tried}",
            f"{today}; or name an archive that keeps old ones in {SNAPSHOT}",
        )
    if any(gone):
        problem = f"{what}: one place does not have it any more, and no other gives it:\n{tried}"
        return FetchError(problem, f"{today}; or {network}")
    if len(problems) == 1:
        return FetchError(f"{what}: {problems[0].message}", network)
    return FetchError(f"{what}: no place gives it:\n{tried}", network)
