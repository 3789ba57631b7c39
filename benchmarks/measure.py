"""Measures: sides that do the same, run in turn (A B A B), so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.programs import Failed

OURS = "umlbuild"


@dataclass(frozen=True)
class Side:
    """One way to do what is measured."""

    name: str
    run: Callable[[], float]
    """Does it once, returns seconds. Raises: Failed."""


@dataclass
class Row:
    """What was measured of one side."""

    name: str
    seconds: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass
class Measure:
    """One measure: its sides in one unit, seconds."""

    name: str
    what: str
    rows: list[Row]
    goal_s: float | None = None
    goal_ratio: float | None = None
    """Of our time to each peer's, at most."""
    skipped: str = ""

    def ratios(self) -> dict[str, float]:
        """Peer → our least time by its least. Minima: a shared machine only ever adds."""
        ours = next((row for row in self.rows if row.name == OURS and row.seconds), None)
        if ours is None:
            return {}
        peers = (row for row in self.rows if row is not ours and row.seconds)
        return {row.name: min(ours.seconds) / min(row.seconds) for row in peers}

    def as_data(self) -> dict[str, object]:
        """For JSON: ratios first."""
        sides = {
            row.name: {"failure": row.failure} if not row.seconds else {
                "min_s": round(min(row.seconds), 4), "median_s": round(row.median, 4),
                "seconds": [round(value, 4) for value in row.seconds],
                **({"failure": row.failure} if row.failure else {}),
            }
            for row in self.rows
        }  # fmt: skip
        return {
            "name": self.name,
            "ratios": {name: round(ratio, 3) for name, ratio in self.ratios().items()},
            "what": self.what,
            "goal_s": self.goal_s,
            "goal_ratio": self.goal_ratio,
            "sides": sides,
            "skipped": self.skipped,
        }


def interleaved(sides: Sequence[Side], rounds: int) -> list[Row]:
    """Run all sides `rounds` times in turn; one that fails is left out from then on, with the reason."""
    rows = [Row(side.name) for side in sides]
    for _ in range(rounds):
        for side, row in zip(sides, rows, strict=True):
            if row.failure:
                continue
            try:
                row.seconds.append(side.run())
            except Failed as error:
                row.failure = str(error)
    return rows


def skipped(name: str, what: str, why: str) -> Measure:
    """A measure that could not be made here."""
    return Measure(name, what, [], skipped=why)
