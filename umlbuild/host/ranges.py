"""Ranges of files, copied inside the kernel; it may share the blocks. Source: copy_file_range(2)."""

from __future__ import annotations

import errno
import os

_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""What copy_file_range(2) says of other file systems, pipes and old kernels."""


def copy(source: int, target: int, start: int, end: int) -> None:
    """Copy a range of one file to where another one (or a pipe) stands. Raises: OSError (EIO: the source ends)."""
    ranges = True
    while start < end:
        try:
            if ranges:
                done = os.copy_file_range(source, target, end - start, start)
            else:
                done = os.sendfile(target, source, start, end - start)
        except OSError as error:
            if not ranges or error.errno not in _CANNOT:
                raise
            ranges = False
            continue
        if done == 0:
            raise OSError(errno.EIO, f"{end - start} bytes are missing at its end")
        start += done
