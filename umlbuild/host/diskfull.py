"""A disk that becomes full (or read-only) while a build works: told as that, and where, with the fix.

Without this, what a person sees depends on who met it first: our own writing (an OSError, which looks like a
bug), apt (which calls it a mirror that cannot be read) or a program of a step.

Source: errno(3), write(2).
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from umlbuild.errors import HostError, ToolFailed, UserError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota of the disk is used up",
    errno.EROFS: "is on a read-only file system",
}
_SAID = re.compile(r"No space left on device|Disk quota exceeded|Wrote only \d+ of \d+ bytes")
"""The last is GNU tar's, whose last block fits in part (measured): it then never sees the error itself."""
_NOTHING = 1 << 20
"""Bytes; who has less could not even write its log."""


def worded(error: Exception, place: Path) -> Exception:
    """What to tell about an error of a step that writes below `place`: the same, unless its disk is the cause."""
    for cause in _chain(error):
        if isinstance(cause, OSError) and not isinstance(cause, UserError) and cause.errno in _REASONS:
            where = _directory_of(cause, place)
            fix = _fix(where) if cause.errno != errno.EROFS else "set UMLBUILD_CACHE to a directory that can be written"
            return HostError(f"{where}: {_REASONS[cause.errno]}", fix)
    if isinstance(error, UserError) and not isinstance(error, HostError):
        no_room = isinstance(error, ToolFailed) and free(place) < _NOTHING
        if no_room or _SAID.search(error.message):
            # "seems": mkfs says the same about an image that is too small.
            error.hint = f"the disk of {place} seems to be full: {_fix(place)}"
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _directory_of(error: OSError, place: Path) -> Path:
    """Only a path of the file system is of use: a name inside an archive or of a socket is not."""
    name = error.filename2 or error.filename  # of a copy, the second is the one that is written
    if isinstance(name, str) and (parent := Path(name).absolute().parent).is_dir():
        return parent
    return place


def free(place: Path) -> int:
    """Bytes that an ordinary user can still write to the disk of a directory; a lot if nobody knows."""
    try:
        facts = os.statvfs(place)
    except OSError:
        return sys.maxsize
    return facts.f_bavail * facts.f_frsize


def full(place: Path) -> HostError:
    """The error for a directory on a disk that is full."""
    return HostError(f"{place}: {_REASONS[errno.ENOSPC]}", _fix(place))


def _fix(where: Path) -> str:
    return f"make room there (df -h {where}) or set UMLBUILD_CACHE to a directory with more, and build again"
