"""What the host measures while an attempt is made."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from umlbuild.attack.attempt import Live, Measure, Scene


@contextlib.contextmanager
def measuring(attempt: Live, scene: Scene) -> Iterator[Callable[[], str]]:
    """Measure while this is open, and once more at its end; what is given says what was first seen."""
    seen: list[str] = []
    over = threading.Event()

    def measure(ask: Measure) -> None:
        while not over.wait(0.1):
            seen.append(ask(scene))

    thread = threading.Thread(target=measure, args=(attempt.measure,)) if attempt.measure else None
    if thread:
        thread.start()
    try:
        yield lambda: next(filter(None, seen), "")
    finally:
        over.set()
        if thread and attempt.measure:
            thread.join()
            seen.append(attempt.measure(scene))
