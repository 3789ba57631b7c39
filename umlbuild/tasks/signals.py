"""SIGINT, SIGTERM and SIGHUP end a build and all its children within five seconds.

The first signal cancels: running programs get TERM (and soon KILL) from their gate, stages are left by
Cancelled, doit ends as after a failed step. A step that does not come back (pure computing, a slow
socket) is not waited for: after GRACE_S, or on a second signal, everything is killed and the process
exits. What that leaves is scratch, never an entry of the store.
While no step of ours runs, a signal ends the process by SystemExit at once, also other people's tasks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from umlbuild.host import process

GRACE_S = 4.0
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _State:
    installed = False
    received = 0
    steps = 0
    lock = threading.Lock()


def install() -> None:
    """Take over the signals; only the main thread can, elsewhere nothing happens."""
    if _State.installed or threading.current_thread() is not threading.main_thread():
        return
    _State.installed = True
    for number in _NUMBERS:
        # nohup's ignored SIGHUP, and an ignored SIGINT of a background job, stay ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def received() -> int:
    """The number of the signal that ends this build; 0: none."""
    return _State.received


@contextlib.contextmanager
def step() -> Iterator[None]:
    """Around a running step: a signal cancels it instead of ending the process at once."""
    with _State.lock:
        _State.steps += 1
    try:
        yield
    finally:
        with _State.lock:
            _State.steps -= 1


def _handle(number: int, _frame: FrameType | None) -> None:
    first = not _State.received
    _State.received = _State.received or number
    if not first:
        _exit_now()
    process.cancel()
    threading.Thread(target=_exit_late, daemon=True, name="deadline").start()
    if not _State.steps:
        raise SystemExit(128 + number)


def _exit_late() -> None:
    time.sleep(GRACE_S)
    _exit_now()


def _exit_now() -> None:
    process.kill()
    if "multiprocessing" in sys.modules:  # doit -P process: its workers would go on, for nobody joins them any more
        import multiprocessing

        for worker in multiprocessing.active_children():
            worker.kill()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(128 + _State.received)
