"""Files and directories on their way into a guest and out of it, as tar archives.

What comes from a guest is not trusted: nothing is ever written outside the target, through a symlink, or with
setuid bits; devices and pipes are refused. Owners are not carried over: root in the guest, the caller on the host.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO

from umlbuild.runtime.failures import MachineError


def pack(source: Path, name: str) -> IO[bytes]:
    """A temporary file with the archive of `source` (file, directory or symlink) under `name`."""

    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    file = scratch()
    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(source, arcname=name, filter=owned_by_root)
    except BaseException:
        file.close()
        raise
    return file


def scratch() -> IO[bytes]:
    """A temporary file for an archive from a guest."""
    return tempfile.TemporaryFile(prefix="umlbuild-", dir=_roomy())


def unpack(archive: IO[bytes], target: Path) -> None:
    """Make `target` what the archive holds: one file, or one directory with what is in it.

    Raises: MachineError for an archive that is broken or reaches outside; nothing of it is kept.
    """
    archive.seek(0)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        try:
            with tarfile.open(fileobj=archive, mode="r:") as tar:
                top = _extract(tar, holder)
        except tarfile.TarError as problem:
            raise MachineError(f"{target}: what the guest sent is no archive: {problem}") from problem
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        os.replace(holder / top, target)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _extract(tar: tarfile.TarFile, holder: Path) -> str:
    top = ""
    for member in tar:
        parts = PurePosixPath(member.name).parts
        path = _safe(holder, parts)
        if top and parts[0] != top:
            raise MachineError(f"the guest sent an archive with more than was asked for: {member.name!r}")
        top = parts[0]
        if member.isdir():
            path.mkdir(mode=0o700, exist_ok=True)
        elif member.issym():
            path.symlink_to(member.linkname)
        elif member.islnk():
            shutil.copyfile(_safe(holder, PurePosixPath(member.linkname).parts), path, follow_symlinks=False)
        elif member.isreg():
            _write(tar, member, path)
        else:
            raise MachineError(f"{member.name}: neither file, directory nor symlink: not copied")
        if not member.issym() and not path.is_symlink():
            path.chmod((member.mode & 0o777) | (0o700 if member.isdir() else 0))
    if not top:
        raise tarfile.ReadError("it is empty")
    return top


def _safe(holder: Path, parts: tuple[str, ...]) -> Path:
    """The path below `holder`, whose parents are directories and no links."""
    if not parts or ".." in parts or parts[0] == "/":
        raise MachineError(f"the guest sent an archive that reaches outside: {'/'.join(parts)!r}")
    at = holder
    for part in parts[:-1]:
        at /= part
        if at.is_symlink() or not at.is_dir():
            raise MachineError(f"the guest sent an archive that goes through {at.name!r}, which is no directory")
    return at / parts[-1]


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = tar.extractfile(member)
    assert content is not None
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def _roomy() -> str | None:
    """Where big temporary files go: the user's TMPDIR, else /var/tmp (not a tmpfs as a rule)."""
    if "TMPDIR" in os.environ:
        return None
    return "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
