"""What is going on, for a person: one line per running step.

On a terminal the lines of the running steps stand at the bottom and are updated in place; elsewhere (a
file, a pipe, NO_COLOR or TERM=dumb) there are only plain lines: start, a sign of life each minute, end.
Steps run in threads, so everything here holds one lock.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol, TextIO

_TICK_S = 0.25
_SIGN_OF_LIFE_S = 60.0
_UP_AND_ERASE = "\x1b[1A\x1b[2K"


class Board(Protocol):
    """Where steps tell what they do."""

    def begin(self, label: str) -> None:
        """A step starts."""

    def note(self, label: str, text: str) -> None:
        """A running step says how far it is."""

    def end(self, label: str, outcome: str) -> None:
        """A step has ended; `outcome` is one word or two, "" says nothing."""

    def say(self, text: str) -> None:
        """A line that stays."""


class Silent:
    """The board of a process whose doit has another reporter."""

    def begin(self, label: str) -> None:
        """Nothing."""

    def note(self, label: str, text: str) -> None:
        """Nothing."""

    def end(self, label: str, outcome: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


@dataclass
class _Running:
    label: str
    started: float = field(default_factory=time.monotonic)
    text: str = ""
    told: float = field(default_factory=time.monotonic)


class Lines:
    """The board of our reporter."""

    def __init__(self, stream: TextIO, live: bool) -> None:
        self._stream = stream
        self._live = live
        self._lock = threading.RLock()
        self._running: dict[str, _Running] = {}
        self._drawn = 0
        self._paused = 0
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def begin(self, label: str) -> None:
        """A step starts."""
        with self._lock:
            self._running[label] = _Running(label)
            if not self._live:
                self._write(f"{label} …\n")
            if self._ticker is None:
                self._ticker = threading.Thread(target=self._tick, daemon=True, name="progress")
                self._ticker.start()
            self._redraw()

    def note(self, label: str, text: str) -> None:
        """A running step says how far it is."""
        with self._lock:
            if label in self._running:
                self._running[label].text = text

    def end(self, label: str, outcome: str) -> None:
        """A step has ended."""
        with self._lock:
            row = self._running.pop(label, None)
            self._erase()
            if row is not None and outcome:
                self._write(f"{label}: {outcome} ({_elapsed(row.started)})\n")
            self._redraw()

    def say(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._erase()
            self._write(f"{text}\n")
            self._redraw()

    def pause(self) -> None:
        """Leave the terminal to somebody else's task until `resume`."""
        with self._lock:
            self._paused += 1
            self._erase()

    def resume(self) -> None:
        """Take the terminal back."""
        with self._lock:
            self._paused = max(0, self._paused - 1)
            self._redraw()

    def close(self) -> None:
        """Erase what moves and stop."""
        self._stop.set()
        with self._lock:
            self._running.clear()
            self._erase()
        if self._ticker is not None:
            self._ticker.join(timeout=2)

    def running(self) -> list[str]:
        """The labels of the steps that run now."""
        with self._lock:
            return list(self._running)

    def _tick(self) -> None:
        while not self._stop.wait(_TICK_S):
            with self._lock:
                self._redraw()
                self._give_sign_of_life()

    def _give_sign_of_life(self) -> None:
        if self._live:
            return
        now = time.monotonic()
        for row in self._running.values():
            if now - row.told >= _SIGN_OF_LIFE_S:
                row.told = now
                self._write(f"{row.label}: {_elapsed(row.started)}{_and(row.text)}\n")

    def _redraw(self) -> None:
        if not self._live or self._paused or self._stop.is_set():
            return
        width = shutil.get_terminal_size().columns
        rows = [f"{row.label} … {_elapsed(row.started)}{_and(row.text)}" for row in self._running.values()]
        self._erase(flush=False)
        self._write("".join(f"{row[: max(10, width - 1)]}\n" for row in rows))
        self._drawn = len(rows)

    def _erase(self, flush: bool = True) -> None:
        if self._drawn:
            self._stream.write(_UP_AND_ERASE * self._drawn)
            self._drawn = 0
            if flush:
                self._stream.flush()

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def is_live(stream: TextIO) -> bool:
    """Whether lines may be updated in place on a stream."""
    try:
        terminal = stream.isatty()
    except (AttributeError, ValueError):
        return False
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


class _Current:
    board: Board = Silent()


def board() -> Board:
    """The board of this process."""
    return _Current.board


def use(new: Board) -> None:
    """Make `new` the board of this process."""
    _Current.board = new


def _elapsed(started: float) -> str:
    seconds = time.monotonic() - started
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def _and(text: str) -> str:
    return f", {text}" if text else ""
