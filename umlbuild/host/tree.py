"""A root file system as the members of an archive: looked at and edited without unpacking it.

Paths are a guest's: absolute, and looked up through the root's own symlinks, so that a file for
/lib/systemd lands in /usr/lib/systemd and a usr-merged root stays merged. A hard link whose first name
goes away gets the content itself. No file system, no privilege, no owner but numbers.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from pathlib import Path

from umlbuild.errors import StepFailed
from umlbuild.host import tarball
from umlbuild.host.process import EPOCH
from umlbuild.host.tarball import Member, Span

_MAX_LINKS = 40
_GLOB = frozenset("*?[")


class Tree:
    """The members of a root, by path without a leading "/"."""

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self._members: dict[str, Member] = {}
        self._links: dict[str, set[str]] = {}  # file → the hard links that share it
        for member in members:  # the later of two wins, as when unpacking
            self.put(member)
        self._members.setdefault("", Member("", "dir", 0o755))

    @classmethod
    def of(cls, archive: Path) -> Tree:
        """The tree that an archive holds. Raises: StepFailed if it is none."""
        return cls(tarball.read(archive))

    def __iter__(self) -> Iterator[Member]:
        """All members, sorted as `tarball.order_of` says."""
        paths = sorted(self._members, key=tarball.order_of)
        return iter([self._members[path] for path in paths])

    def write(self, archive: Path) -> None:
        """Write it, sorted; the first name of hard-linked ones has the content."""
        tarball.write(self.settled(), archive)

    def settled(self) -> Iterator[Member]:
        """The members in order, the content of each hard-linked file with the first of its names."""
        members = list(self)
        first: dict[str, str] = {}  # file → the name that comes first
        for member in members:
            if member.kind == "file":
                first.setdefault(member.path, member.path)
            elif member.kind == "link":
                first.setdefault(member.target, member.path)
        for member in members:
            if member.kind == "link" and first[member.target] == member.path:
                yield self._members[member.target].but(path=member.path)
            elif member.kind in ("file", "link"):
                file = member.path if member.kind == "file" else member.target
                holder = first[file]
                if holder == file:
                    yield member
                else:
                    owner = self._members[file]
                    yield owner.but(path=member.path, kind="link", target=holder, data=b"", xattrs={})
            else:
                yield member

    def copy(self) -> Tree:
        """Another tree of the same members."""
        other = Tree(())
        other._members = dict(self._members)
        other._links = {path: set(names) for path, names in self._links.items()}
        return other

    # Looking

    def resolve(self, path: str, *, last: bool = True) -> str:
        """Where a guest's path leads, without leading "/"; missing parts stay as they are.

        `last=False` leaves a symlink at the very end alone. Raises: StepFailed for a loop of symlinks.
        """
        left = [part for part in path.split("/") if part][::-1]
        at: list[str] = []
        links = 0
        while left:
            part = left.pop()
            if part in (".", ".."):
                del at[len(at) - (part == "..") :]
                continue
            at.append(part)
            member = self._members.get("/".join(at))
            if member is None or member.kind != "symlink" or not (left or last):
                continue
            links += 1
            if links > _MAX_LINKS:
                raise StepFailed(f"{path}: too many symbolic links, they go round in a loop")
            at = [] if member.target.startswith("/") else at[:-1]
            left += [part for part in member.target.split("/") if part][::-1]
        return "/".join(at)

    def get(self, path: str, *, follow: bool = True) -> Member | None:
        """What is at a path, None if nothing is; a hard link gives the file that it shares."""
        member = self._members.get(self.resolve(path, last=follow))
        return self._members[member.target] if member is not None and member.kind == "link" else member

    def read(self, path: str) -> bytes | None:
        """The content of the file at a path, None if there is no file."""
        member = self.get(path)
        return tarball.content(member) if member is not None and member.kind == "file" else None

    def text(self, path: str) -> str:
        """The text of the file at a path, "" if there is no file."""
        return (self.read(path) or b"").decode(errors="surrogateescape")

    def names(self, path: str) -> list[str]:
        """The names in the directory at a path, sorted; [] if there is no directory."""
        top = self.resolve(path)
        prefix = f"{top}/" if top else ""
        cut = len(prefix)
        return sorted(p[cut:] for p in self._members if p.startswith(prefix) and p and "/" not in p[cut:])

    def below(self, path: str) -> list[str]:
        """The full paths of everything under the directory at a path, sorted as an archive is."""
        prefix = self.resolve(path) + "/"
        return sorted((p for p in self._members if p.startswith(prefix)), key=tarball.order_of)

    def matching(self, pattern: str) -> list[str]:
        """The members that a path or pattern names. `*`, `?` and `[…]` stay within one name, `**` does not.

        The part before the first wildcard is looked up through symlinks; a symlink at the end is itself.
        """
        parts = [part for part in pattern.split("/") if part]
        fixed = next((n for n, part in enumerate(parts) if _GLOB & set(part)), len(parts))
        if fixed == len(parts):
            path = self.resolve(pattern, last=False)
            return [path] if path in self._members else []
        top = self.resolve("/".join(parts[:fixed]))
        prefix = f"{top}/" if top else ""
        wanted = parts[fixed:]
        return [
            path for path in self._members
            if path.startswith(prefix) and path and _matches(path[len(prefix) :].split("/"), wanted)
        ]  # fmt: skip

    # Changing

    def put_file(self, path: str, content: bytes | Path, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """A file at a path, in place of a file or symlink that stood there. Raises: StepFailed on a directory."""
        data = Span(content, 0, content.stat().st_size) if isinstance(content, Path) else content
        at = self._cleared(path)
        self._set(Member(at, "file", mode, uid, gid, data=data))

    def put_symlink(self, path: str, target: str, *, uid: int = 0, gid: int = 0) -> None:
        """A symlink at a path; as `put_file`."""
        at = self._cleared(path)
        self._members[at] = Member(at, "symlink", 0o777, uid, gid, target=target)

    def put_dir(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """A directory at a path; one that is there (also behind a symlink) keeps what it holds."""
        at = self.resolve(path)
        old = self._members.get(at)
        if old is not None and old.kind != "dir":
            raise StepFailed(f"{path}: cannot be a directory, a {old.kind} is there", "remove it in the recipe")
        self._parents(at)
        if old is None:
            self._members[at] = Member(at, "dir", mode, uid, gid)
        elif (old.mode, old.uid, old.gid) != (mode, uid, gid):
            self._members[at] = old.but(mode=mode, uid=uid, gid=gid)

    def put(self, member: Member) -> None:
        """A member as it is (its path is taken literally), in place of what stood there."""
        self._drop(member.path)
        self._set(member)

    def replace(self, path: str, content: bytes) -> None:
        """New content for a file that keeps mode and owner; one of root's (0644) if there is none."""
        old = self.get(path)
        if old is None:
            self.put_file(path, content)
        elif tarball.content(old) != content:
            self._members[old.path] = old.but(data=content, mtime=EPOCH)

    def remove(self, *paths: str) -> None:
        """Take away what is at each path (a symlink itself) and all below it."""
        tops = {self.resolve(path, last=False) for path in paths}
        if "" in tops:
            raise StepFailed("removing /: the root itself cannot be removed")
        known: dict[str, bool] = {"": False}

        def goes(path: str) -> bool:
            if path not in known:
                known[path] = path in tops or goes(_above(path))
            return known[path]

        for name in [path for path in self._members if goes(path)]:
            self._drop(name)

    def merge(self, other: Iterable[Member]) -> None:
        """Lay another archive over this one, through the symlinks here; directories that are here stay."""
        moved: dict[str, str] = {}
        for member in other:
            if not member.path:
                continue
            at = self.resolve(member.path, last=member.kind == "dir")
            old = self._members.get(at)
            moved[member.path] = at
            if old is not None and old.kind == "dir":
                if member.kind != "dir":
                    raise StepFailed(f"/{at}: is a directory here and a {member.kind} in what is merged")
                continue
            self._parents(at)
            self._drop(at)
            target = moved.get(member.target, member.target) if member.kind == "link" else member.target
            same = at == member.path and target == member.target
            self._set(member if same else member.but(path=at, target=target))

    # Inside

    def _cleared(self, path: str) -> str:
        """The member path for something new: parents made, the old file or link gone."""
        at = self.resolve(path, last=False)
        old = self._members.get(at)
        if old is not None and old.kind == "dir":
            raise StepFailed(f"{path}: is a directory in the root", "remove it in the recipe, or name another path")
        self._parents(at)
        self._drop(at)
        return at

    def _parents(self, at: str) -> None:
        missing = []
        for parent in _upward(_above(at)):
            member = self._members.get(parent)
            if member is None:
                missing.append(parent)
            elif member.kind != "dir":
                raise StepFailed(f"/{at}: /{parent} is a {member.kind}, not a directory")
        for parent in missing:
            self._set(Member(parent, "dir", 0o755))

    def _set(self, member: Member) -> None:
        self._members[member.path] = member
        if member.kind == "link":
            self._links.setdefault(member.target, set()).add(member.path)

    def _drop(self, at: str) -> None:
        """Forget one member; if hard links share its content, the first of them becomes the file."""
        member = self._members.pop(at, None)
        if member is None:
            return
        if member.kind == "link":
            self._links[member.target].discard(at)
        links = sorted(self._links.pop(at, ()), key=tarball.order_of)
        if links:
            self._members[links[0]] = member.but(path=links[0])
            for link in links[1:]:
                self._set(self._members[link].but(target=links[0]))


def _above(path: str) -> str:
    """The directory that a member is in. (posixpath.dirname takes several times as long.)"""
    return path[: max(path.rfind("/"), 0)]


def _upward(path: str) -> Iterator[str]:
    """A path and every directory above it, but not the root."""
    while path:
        yield path
        path = _above(path)


def _matches(path: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(path[n:], pattern[1:]) for n in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])
