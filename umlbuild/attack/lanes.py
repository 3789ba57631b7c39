"""The attempts on one bundle, two at a time: each lane is a suite of its own, with its own copy and canaries."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

from umlbuild.attack.attempt import Attempt, ByGuest, ByGuestCode
from umlbuild.attack.suite import ATTEMPTS, Row, Suite

_LANES: tuple[Sequence[Attempt], ...] = (
    [attempt for attempt in ATTEMPTS if isinstance(attempt, ByGuest | ByGuestCode)],
    [attempt for attempt in ATTEMPTS if not isinstance(attempt, ByGuest | ByGuestCode)],
)
_ORDER = {attempt.name: number for number, attempt in enumerate(ATTEMPTS)}


def rows(bundle: Path, *, allow_root: bool = False) -> Generator[Row, None, None]:
    """All rows as they come. Close it (contextlib.closing) to end the attempts early. Raises: what a suite raises."""
    suites = [Suite(bundle, allow_root=allow_root) for _ in _LANES]
    came: queue.SimpleQueue[Row | BaseException | None] = queue.SimpleQueue()

    def run(suite: Suite, attempts: Sequence[Attempt]) -> None:
        try:
            with suite:
                for row in suite.rows(attempts):
                    came.put(row)
            came.put(None)
        except BaseException as problem:
            came.put(problem)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(suites, _LANES, strict=True)]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            match came.get():
                case None:
                    running -= 1
                case BaseException() as problem:
                    raise problem
                case Row() as row:
                    yield row
    finally:
        for suite in suites:
            suite.abort()
        for thread in threads:
            thread.join()


def in_order(found: Sequence[Row]) -> list[Row]:
    """As the attempts are listed, whenever they came."""
    return sorted(found, key=lambda row: _ORDER[row.name])
