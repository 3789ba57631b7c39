"""Changes: what makes one root of another, few files beside many that stay.

As an entry of the store: `changes.tar` with what is put there, and `changes.json`, what happens to what was there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from umlbuild.host import tarball
from umlbuild.host.tarball import Member
from umlbuild.host.tree import Tree

_TAR = "changes.tar"
_PATHS = "changes.json"


@dataclass(frozen=True)
class Changes:
    """The difference between two roots."""

    gone: Mapping[str, bool]
    """Path → whether it is a directory, of all that is not there afterwards or is replaced; what is in a directory
    comes before it."""
    kept: frozenset[str]
    """Directories that only get another mode or owner."""
    put: tuple[Member, ...]
    """What is there afterwards, sorted: new and replaced things, and directories that are kept. Of a file that has
    several names all are here, or none."""

    @property
    def names(self) -> Mapping[str, int]:
        """File that is put → how many names it has, of those that have several."""
        links = Counter(member.target for member in self.put if member.kind == "link")
        return {file: count + 1 for file, count in links.items()}

    def write(self, out: Path) -> None:
        """Write them into an entry."""
        tarball.write(self.put, out / _TAR)
        paths = {"gone": self.gone, "kept": sorted(self.kept)}
        (out / _PATHS).write_text(json.dumps(paths, indent=1) + "\n", encoding="ascii")


def read(entry: Path) -> Changes:
    """The changes that an entry holds. Raises: StepFailed for a damaged archive."""
    paths = json.loads((entry / _PATHS).read_text(encoding="ascii"))
    return Changes(paths["gone"], frozenset(paths["kept"]), tuple(tarball.read(entry / _TAR)))


def between(before: Tree, after: Tree) -> Changes:
    """What makes `after` of `before`."""
    old = {member.path: member for member in before.settled()}
    new = {member.path: member for member in after.settled()}
    files = {_file(member) for path, member in new.items() if member != old.get(path)}
    changed = {path for path, member in new.items() if _file(member) in files}
    kept = frozenset(path for path in changed & old.keys() if old[path].kind == new[path].kind == "dir")
    gone = [path for path in old if path not in new or path in changed - kept]
    gone.sort(key=tarball.order_of, reverse=True)
    put = tuple(member for path, member in new.items() if path in changed)
    return Changes({path: old[path].kind == "dir" for path in gone}, kept, put)


def _file(member: Member) -> str:
    """The path under which the names of one file are known."""
    return member.target if member.kind == "link" else member.path
