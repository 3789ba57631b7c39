"""Scripts for debugfs: what `mke2fs -d TAR` leaves out, and changes of a finished ext4.

mke2fs takes only security.capability of the extended attributes (Source: e2fsprogs misc/create_inode_libarchive.c; seen
with 1.47.2). debugfs turns the system.posix_acl_* values into ext4's own form. It gives a file owner and mode of the
host's file, and counts no names; the scripts say all of that, and SOURCE_DATE_EPOCH stops the clock, so that nothing of
the host is in what they leave (Source: debugfs(8); tried with other umasks, time zones and directories).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import StepFailed
from umlbuild.host import tarball
from umlbuild.host.changes import Changes
from umlbuild.host.process import EPOCH
from umlbuild.host.tarball import Member

_DONE_BY_MKE2FS = "security.capability"
_TYPES = {"file": 0o100000, "dir": 0o040000, "symlink": 0o120000}
"""The part of an inode's mode that says what it is. Source: inode(7)."""


def write_script(members: Sequence[Member], work: Path) -> Path | None:
    """The script that sets attributes, and the values that it reads, below `work`; None if there is nothing to set.

    Raises: StepFailed for a path that debugfs cannot be told.
    """
    lines = [line for member in members for line in _attributes(member, work, but=_DONE_BY_MKE2FS)]
    return _script(lines, work) if lines else None


def write_changes(changes: Changes, work: Path) -> Path:
    """The script that makes changes in an image, and the files that it reads, below `work`.

    Raises: StepFailed for what debugfs cannot be told or cannot make (devices).
    """
    lines = [f"{'rmdir' if is_dir else 'rm'} {_path(path)}\n" for path, is_dir in changes.gone.items()]
    names = changes.names
    for number, member in enumerate(changes.put):
        at = _path(member.path)
        if member.kind == "link":
            lines.append(f"ln {_path(member.target)} {at}\n")
            continue
        if member.kind not in _TYPES:
            raise StepFailed(f"ext4: /{member.path}: a {member.kind} cannot be put into an image")
        if member.kind == "file":
            file = work / f"file{number}"
            tarball.unpack(member, file)
            lines.append(f"write {_quoted(str(file))} {at}\n")
        elif member.kind == "symlink":
            lines.append(f"symlink {at} {_quoted(member.target)}\n")
        elif member.path not in changes.kept:
            lines.append(f"mkdir {at}\n")
        facts = {"mode": f"0{_TYPES[member.kind] | member.mode:o}", "uid": member.uid, "gid": member.gid}
        if member.mtime != EPOCH:
            facts["mtime"] = f"@{member.mtime}"
        if member.path in names:
            facts["links_count"] = names[member.path]
        lines += [f"sif {at} {name} {value}\n" for name, value in facts.items()]
        lines += _attributes(member, work)
    return _script(lines, work)


def _attributes(member: Member, work: Path, but: str = "") -> Iterator[str]:
    for name, value in sorted(member.xattrs.items()):
        if name != but:
            file = work / f"xattr-{digest.of_bytes(value)}"
            file.write_bytes(value)
            yield f"ea_set -f {_quoted(str(file))} {_path(member.path)} {_quoted(name)}\n"


def _script(lines: Sequence[str], work: Path) -> Path:
    script = work / "script.debugfs"
    script.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    return script


def _path(path: str) -> str:
    return _quoted(f"/{path}")


def _quoted(word: str) -> str:
    if "\n" in word:
        raise StepFailed(f"ext4: {word!r} cannot be put into an image: there is a line break in it")
    return '"' + word.replace('"', '""') + '"'
