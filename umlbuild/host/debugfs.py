"""A debugfs script that sets the extended attributes which `mke2fs -d TAR` leaves out.

mke2fs takes only security.capability (Source: e2fsprogs misc/create_inode_libarchive.c; seen with 1.47.2).
debugfs turns the system.posix_acl_* values into ext4's own form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umlbuild.errors import StepFailed
from umlbuild.host.tarball import Member

_DONE_BY_MKE2FS = "security.capability"


def write_script(members: Sequence[Member], work: Path) -> Path | None:
    """Write the script and the values that it reads below `work`; None if there is nothing to set.

    Raises: StepFailed for a path that debugfs cannot be told.
    """
    lines: list[str] = []
    for member in members:
        for name, value in sorted(member.xattrs.items()):
            if name == _DONE_BY_MKE2FS:
                continue
            file = work / f"xattr{len(lines)}"
            file.write_bytes(value)
            lines.append(f"ea_set -f {_quoted(str(file))} {_quoted(f'/{member.path}')} {_quoted(name)}\n")
    if not lines:
        return None
    script = work / "xattrs.debugfs"
    script.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    return script


def _quoted(word: str) -> str:
    if "\n" in word:
        raise StepFailed(f"ext4: the attributes of {word!r} cannot be set: there is a line break in it")
    return '"' + word.replace('"', '""') + '"'
