"""A program that writes nothing any more, for programs that wait for ever instead of failing.

Source: measured: `apt-get update` (2.6.1) on a disk that becomes full fails or, about every third time, waits
in poll(2) for its method `store`, which waits for it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from umlbuild.errors import FetchError
from umlbuild.host import diskfull

_LITTLE = 64 << 20
"""Bytes; about what the package lists of one suite need."""


class Stall:
    """A `watch` of process.run: raises once nothing was written below `place` for `patience_s` seconds.

    Raises: HostError when the disk has little room left, FetchError otherwise.
    """

    def __init__(self, place: Path, patience_s: float) -> None:
        self.place = place
        self.patience_s = patience_s
        self.seen: object = None
        self.changed_at = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        state = _state(self.place)
        if state != self.seen:
            self.seen, self.changed_at = state, now
        elif now - self.changed_at > self.patience_s:
            if diskfull.free(self.place) < _LITTLE:
                raise diskfull.full(self.place)
            raise FetchError(f"{self.place}: nothing was written for {self.patience_s:g} s", "check the network")


def _state(place: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file below a directory."""
    rows = []
    for directory, _, files in os.walk(place):
        for name in files:
            try:
                facts = os.lstat(os.path.join(directory, name))
            except FileNotFoundError:
                continue
            rows.append((name, facts.st_size, facts.st_mtime_ns))
    return tuple(rows)
