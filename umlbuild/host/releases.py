"""The signed Release files among apt's lists, and which suite a package was found in.

Source: Debian wiki RepositoryFormat (Date); apt's names of lists (the URI with "_" for "/"); apt-cache(8) madison.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import LockError
from umlbuild.host.mirrors import Mirrors
from umlbuild.specs.packages import Archive, DebPin, LockedDeb


@dataclass(frozen=True, order=True)
class ReleaseFile:
    """One that was read, its signature checked by apt."""

    suite: str
    date: str
    """Its own, e.g. "2026-11-20T08:15:00Z"."""
    archive: Archive
    sha256: str
    """Of the signed file."""


def read(lists: Path, suites: Sequence[tuple[Archive, str]]) -> Iterator[ReleaseFile]:
    """Those of some suites, as far as they are among the lists. Raises: LockError for one without a date."""
    for archive, suite in suites:
        for kind in ("InRelease", "Release"):
            paths = sorted(lists.glob(f"*_dists_{suite}_{kind}"))
            if paths:
                yield ReleaseFile(suite, _date(paths[0]), archive, digest.of_file(paths[0]))
                break


def with_suites(
    pins: Sequence[DebPin], madison: str, suites: Sequence[tuple[Archive, str]], mirrors: Mirrors
) -> tuple[LockedDeb, ...]:
    """Pins with the first suite that has each, by what `apt-cache madison` says of their names."""
    having: dict[tuple[str, str, str], set[str]] = {}
    for line in madison.splitlines():
        name, version, place = (word.strip() for word in line.split("|"))
        uri, component, *_ = place.split()
        having.setdefault((name, version, uri.rstrip("/")), set()).add(component.partition("/")[0])
    found = []
    for pin in pins:
        base = mirrors[pin.archive].split()[0].rstrip("/")
        names = having.get((pin.name, pin.version, base), set())
        where = next((suite for archive, suite in suites if archive == pin.archive and suite in names), None)
        if where is None:
            raise LockError(f"{pin.name} {pin.version}: apt does not say which suite has it", "use another mirror")
        found.append(LockedDeb(**pin.model_dump(), suite=where))
    return tuple(found)


def _date(path: Path) -> str:
    found = re.search(r"^Date: (.+)$", path.read_text(errors="replace"), re.MULTILINE)
    try:
        date = email.utils.parsedate_to_datetime(found[1] if found else "")
    except ValueError as error:
        raise LockError(f"{path.name}: its Release file has no date", "use another mirror") from error
    return f"{date.astimezone(UTC) if date.tzinfo else date:%Y-%m-%dT%H:%M:%SZ}"
