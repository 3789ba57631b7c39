"""SIGINT, SIGTERM and SIGHUP end a build and all its children within five seconds.

The first signal cancels: running programs get TERM (and soon KILL) from their gate, stages are left by
Cancelled, doit ends as after a failed step. A step that does not come back (pure computing, a slow
socket) is not waited for: after GRACE_S, or on a second signal, everything is killed and the process
exits. What that leaves is scratch, never an entry of the store.
While no step of ours runs, a signal ends the process by SystemExit at once, also other people's tasks.

All but that SystemExit is done by a thread that reads the descriptor to which Python writes the numbers of
signals: a handler runs only when the main thread comes to its next bytecode, and one that is just about to wait
for a lock (doit's, for the next result) never comes there.
"""

from __future__ import annotations

import contextlib
import os
import select
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
    _listen()
    os.register_at_fork(after_in_child=_begin_worker)
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
    _State.received = _State.received or number
    if not _State.steps:
        raise SystemExit(128 + number)


def _begin_worker() -> None:
    """doit -P process: no thread goes with a fork, nor should what another thread held; and our pipe is ours."""
    _State.lock = threading.Lock()
    _State.steps = 1  # what a handler raised in here would be printed, and lost
    _listen()
    _State.steps = 0
    if _State.received:
        os._exit(128 + _State.received)


def _listen() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end, args=(reading,), daemon=True, name="signals").start()


def _end(reading: int) -> None:
    """Cancel on the first signal; kill on the second, or when the time is over."""
    number = _next(reading, None)
    _State.received = _State.received or number
    process.cancel()
    _next(reading, GRACE_S)
    process.kill()
    if "multiprocessing" in sys.modules:  # doit -P process: its workers would go on, for nobody joins them any more
        import multiprocessing

        for worker in multiprocessing.active_children():
            worker.kill()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(128 + _State.received)


def _next(reading: int, within_s: float | None) -> int:
    """The next of our signals; 0: none came in time."""
    deadline = None if within_s is None else time.monotonic() + within_s
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reading], [], [], left)[0]:
            return 0
        if (number := os.read(reading, 1)[0]) in _NUMBERS:
            return number
