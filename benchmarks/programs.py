"""Timed programs: each one in a process group of its own, with a deadline, ended whole when that is over."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_TAIL = 600


class Failed(Exception):
    """A program did not do what is measured; the text says why."""


def seconds(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    deadline_s: float,
    env: Mapping[str, str] | None = None,
    until: bytes | None = None,
    ok: Sequence[int] = (0,),
) -> float:
    """Seconds from the start of a program to its end, or (`until`) to the moment when it has printed these bytes.

    Raises: Failed (its status is not in `ok`, the deadline is over, it ends without the bytes).
    """
    words = [os.fspath(word) for word in argv]
    start = time.monotonic()
    child = subprocess.Popen(
        words, cwd=cwd, env={**os.environ, **(env or {})}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert child.stdout is not None
    said = b""
    try:
        while True:
            left = start + deadline_s - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
                raise Failed(f"{Path(words[0]).name}: not done after {deadline_s:g} s")
            block = os.read(child.stdout.fileno(), 65536)
            said = (said + block)[-65536:]
            if until is not None and until in said:
                return time.monotonic() - start
            if not block:
                break
        status = child.wait(timeout=max(0.1, start + deadline_s - time.monotonic()))
        took = time.monotonic() - start
        if until is not None or status not in ok:
            tail = said.decode(errors="replace")[-_TAIL:].strip()
            raise Failed(f"{Path(words[0]).name}: status {status}: {tail}")
        return took
    except subprocess.TimeoutExpired:
        raise Failed(f"{Path(words[0]).name}: not done after {deadline_s:g} s") from None
    finally:
        _end(child)
        child.stdout.close()


def _end(child: subprocess.Popen[bytes]) -> None:
    """TERM first: a launcher then ends its machine and removes what it made."""
    for number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=patience_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # helpers that outlive it, as UML's of 6.x do
