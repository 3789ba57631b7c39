"""A prototype file for mkfs.xfs, made of an archive, and an xfs_db script for what it cannot say.

The files' bytes are unpacked under numbers, so that no name or mode of the guest's matters on the host.
Hard links, sticky bits and extended attributes are set by the script; POSIX ACLs are not (xfs has a form of
its own for them, and xfs_db cannot write attributes that long).

Source: mkfs.xfs(8) "-p"; xfsprogs mkfs/proto.c: tokens end at white space, ":" begins a comment, "$" ends a
directory, "/" stands for a space in names with slashes_are_spaces. xfs_db(8): path, link, attr_set, write.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umlbuild.errors import StepFailed
from umlbuild.host.tarball import Member

_TYPES = {"file": "-", "dir": "d", "symlink": "l", "char": "c", "block": "b", "fifo": "p"}
_FORMATS = {"file": 0o100000, "dir": 0o040000}
_STICKY = 0o1000
_NAMESPACES = {"user": "-u", "security": "-s", "trusted": "-r"}
_LONGEST = 255


@dataclass
class _Node:
    member: Member
    children: dict[str, _Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Prototype:
    """What was written."""

    path: Path
    """The prototype file; its file names are relative to its own directory."""
    fixups: Path | None
    """The xfs_db script; None if there is nothing to mend."""
    left_out: tuple[str, ...]
    """Attributes that are lost, as `path: name`."""


def write(members: Sequence[Member], work: Path) -> Prototype:
    """Write prototype, file contents and script into the directory `work`.

    Raises: StepFailed for names that cannot be said.
    """
    root = _tree(members)
    work.mkdir()
    prototype = work / "prototype"
    lines = ["/", "0 0", *_directory(root, work, [0])]
    prototype.write_bytes(b"\n".join(os.fsencode(line) for line in lines) + b"\n")
    left_out: list[str] = []
    script = [line for member in members for line in _fixups(member, left_out)]
    fixups = work / "fixups.xfs_db" if script else None
    if fixups is not None:
        fixups.write_bytes(b"\n".join(os.fsencode(line) for line in script) + b"\n")
    return Prototype(prototype, fixups, tuple(left_out))


def _tree(members: Sequence[Member]) -> _Node:
    root = _Node(Member(path="", kind="dir", mode=0o755))
    for member in members:
        if not member.path:
            root.member = member
            continue
        *above, name = member.path.split("/")
        node = root
        for depth, part in enumerate(above, start=1):
            implied = Member(path="/".join(above[:depth]), kind="dir", mode=0o755)
            node = node.children.setdefault(part, _Node(implied))
        if name in node.children and member.kind == "dir":
            node.children[name].member = member
        else:
            node.children[name] = _Node(member)
    return root


def _directory(node: _Node, work: Path, counter: list[int]) -> Iterator[str]:
    """The lines of a directory after its name: mode, owner, what is in it, the end."""
    yield _head(node.member)
    for name, child in node.children.items():
        member = child.member
        if member.kind == "link":
            continue
        said = _name(name, member.path)
        match member.kind:
            case "dir":
                inside = _directory(child, work, counter)
                yield f"{said} {next(inside)}"
                yield from inside
            case "file":
                counter[0] += 1
                _unpack(member, work / str(counter[0]))
                yield f"{said} {_head(member)} {counter[0]}"
            case "symlink":
                if not member.target or any(c in member.target for c in " \t\n\r"):
                    raise StepFailed(f"xfs: /{member.path}: no way to tell mkfs.xfs its target", "use ext4")
                yield f"{said} {_head(member)} {member.target}"
            case "char" | "block":
                yield f"{said} {_head(member)} {member.device[0]} {member.device[1]}"
            case "fifo":
                yield f"{said} {_head(member)}"
    yield "$"


def _head(member: Member) -> str:
    setuid = "u" if member.mode & 0o4000 else "-"
    setgid = "g" if member.mode & 0o2000 else "-"
    return f"{_TYPES[member.kind]}{setuid}{setgid}{member.mode & 0o777:03o} {member.uid} {member.gid}"


def _name(name: str, path: str) -> str:
    if name.startswith(":") or name == "$" or any(c in name for c in "\t\n\r\v\f"):
        raise StepFailed(f"xfs: /{path}: this name cannot be said to mkfs.xfs", "rename it, or use ext4")
    return name.replace(" ", "/")


def _unpack(member: Member, target: Path) -> None:
    if isinstance(member.data, bytes):
        target.write_bytes(member.data)
        return
    with member.data.file.open("rb") as source, target.open("wb") as file:
        source.seek(member.data.start)
        left = member.size
        while left > 0:
            block = source.read(min(left, shutil.COPY_BUFSIZE))  # type: ignore[attr-defined]
            if not block:
                raise StepFailed(f"{member.data.file.name}: it is cut off")
            file.write(block)
            left -= len(block)


def _fixups(member: Member, left_out: list[str]) -> Iterator[str]:
    """The xfs_db commands for one member."""
    path = f"/{member.path}"
    if member.kind == "link":
        yield f"path {_word(os.path.dirname(path))}"
        yield f"link -p {_word('/' + member.target)} {_word(os.path.basename(path))}"
        return
    commands: list[str] = []
    if member.mode & _STICKY and member.kind in _FORMATS:
        commands.append(f"write core.mode {_FORMATS[member.kind] | member.mode:#x}")
    for full, value in sorted(member.xattrs.items()):
        namespace, _, name = full.partition(".")
        if namespace not in _NAMESPACES or len(value) > _LONGEST or not value:
            left_out.append(f"{path}: {full}")
            continue
        commands.append(f"attr_set {_NAMESPACES[namespace]} -v {len(value)} {_word(name)}")
        # attr_set can only make a value of so many "v"; the newest attribute is the last of the list.
        commands.append(f"write a.sfattr.list[{_count(commands)}].value #{value.hex()}")
    if commands:
        yield f"path {_word(path)}"
        yield from commands


def _count(commands: Sequence[str]) -> int:
    return sum(1 for command in commands if command.startswith("attr_set")) - 1


def _word(text: str) -> str:
    if not text or any(c in text for c in " \t\n\r\"'\\#"):
        raise StepFailed(
            f"xfs: {text!r}: hard links, sticky bits and attributes of such names cannot be set",
            "rename it, or use ext4",
        )
    return text
