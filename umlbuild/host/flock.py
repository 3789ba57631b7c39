"""Locks of open files, by flock(2). The kernel drops one with its holder, so none is ever stale."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from typing import IO

SHARED, ALONE = fcntl.LOCK_SH, fcntl.LOCK_EX


def got(
    file: IO[bytes] | IO[str] | int,
    how: int = ALONE,
    *,
    timeout_s: float = 0,
    poll_s: float = 0.05,
    waiting: Callable[[], None] = lambda: None,
) -> bool:
    """Whether the lock is ours now; waits for it at most `timeout_s`, and calls `waiting` again and again meanwhile.

    Raises: what `waiting` raises; OSError (a file system without locks).
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        waiting()
        time.sleep(poll_s)
