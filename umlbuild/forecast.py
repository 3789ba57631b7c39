"""`umlbuild plan`: what a build would do. Which steps, from the store or to make, how long, how many bytes to fetch.

Reads no network and builds nothing; seconds are those of earlier builds in this cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from umlbuild.digest import Key
from umlbuild.host.history import History
from umlbuild.host.size import shown
from umlbuild.host.store import Store
from umlbuild.plan.step import Step
from umlbuild.specs.kernel import KernelSourceSpec, TarballSource
from umlbuild.specs.packages import PackagesSpec

State = Literal["in store", "to build", "damaged", "not needed"]


@dataclass(frozen=True)
class Row:
    """One step of a plan."""

    step: Step
    state: State
    """"not needed": neither in the store nor asked for by a step that is to be made."""
    seconds: float | None
    """Expected; None: never made here, nor its like. 0 where nothing is to be made."""
    fetch: int | None
    """Bytes to download; None: not known."""


@dataclass(frozen=True)
class Forecast:
    """A plan's rows, inputs first."""

    rows: tuple[Row, ...]

    @property
    def to_make(self) -> tuple[Row, ...]:
        """The steps that a build would make."""
        return tuple(row for row in self.rows if row.state in ("to build", "damaged"))

    @property
    def seconds(self) -> float:
        """Of the longest chain of steps that wait for each other; steps without a known time count as nothing."""
        cost = {row.step.key: row.seconds or 0.0 for row in self.to_make}
        ends: dict[str, float] = {}
        for row in self.rows:
            before = max((ends.get(below.key, 0.0) for below in row.step.inputs.values()), default=0.0)
            ends[row.step.key] = before + cost[row.step.key] if row.step.key in cost else 0.0
        return max(ends.values(), default=0.0)

    @property
    def fetch(self) -> int:
        """Known bytes to download."""
        return sum(row.fetch or 0 for row in self.to_make)


def forecast_of(goal: Step, cache: Path) -> Forecast:
    """What making `goal` would take; as the tasks see it, a step above an absent entry may do without it."""
    store, history = Store.at(cache), History(cache)
    here = {step.key for step in goal.walk() if store.has(step.stage, step.key)}
    damaged = {
        step.key for step in goal.walk() if step.key not in here and store.path(step.stage, step.key).exists()
    }
    needed = _needed(goal, here, damaged)
    rows: list[Row] = []
    for step in goal.walk():
        state: State = "in store" if step.key in here else "not needed"
        if step.key in needed:
            state = "damaged" if step.key in damaged else "to build"
        making = step.key in needed
        rows.append(
            Row(
                step,
                state,
                history.seconds(step.stage, step.key, step.label) if making else 0.0,
                _to_fetch(step, cache / "downloads") if making else 0,
            )
        )
    return Forecast(tuple(rows))


def text_of(forecast: Forecast) -> str:
    """The forecast as a table, with a line that sums it up."""
    rows = [
        (row.step.stage, row.step.key[:12], row.state, _seconds(row), _bytes(row), row.step.label)
        for row in forecast.rows
    ]
    head = ("stage", "key", "state", "seconds", "fetch", "step")
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(5)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
             for row in (head, *rows)]  # fmt: skip
    return "\n".join([*lines, _sum(forecast)])


def data_of(forecast: Forecast) -> dict[str, object]:
    """The forecast for programs (JSON)."""
    return {
        "steps": [
            {
                "stage": row.step.stage, "key": row.step.key, "label": row.step.label, "state": row.state,
                "seconds": row.seconds, "fetch": row.fetch,
            }
            for row in forecast.rows
        ],
        "to_make": len(forecast.to_make), "seconds": forecast.seconds, "fetch": forecast.fetch,
    }  # fmt: skip


def _needed(goal: Step, here: set[Key], damaged: set[Key]) -> set[Key]:
    """The keys that are to be made: what is asked for and not whole, and damaged ones wherever they are."""
    found: set[Key] = set()

    def visit(steps: Sequence[Step]) -> None:
        for step in steps:
            if step.key not in here and step.key not in found:
                found.add(step.key)
                visit(list(step.inputs.values()))

    visit([goal, *(step for step in goal.walk() if step.key in damaged)])
    return found


def _to_fetch(step: Step, downloads: Path) -> int | None:
    spec = step.spec
    if isinstance(spec, PackagesSpec):
        return sum(
            pin.size for pin in spec.pins if not (downloads / pin.sha256[:2] / f"{pin.sha256}.deb").exists()
        )
    if isinstance(spec, KernelSourceSpec) and isinstance(spec.source, TarballSource):
        return 0 if spec.source.sha256 in step.sources else None
    return 0


def _seconds(row: Row) -> str:
    if row.state in ("in store", "not needed"):
        return ""
    return "?" if row.seconds is None else f"{row.seconds:.1f}"


def _bytes(row: Row) -> str:
    return "?" if row.fetch is None else shown(row.fetch) if row.fetch else ""


def _sum(forecast: Forecast) -> str:
    making = forecast.to_make
    if not making:
        return "nothing to make"
    parts: list[str] = [f"{len(making)} of {len(forecast.rows)} steps to make"]
    parts += list(_estimate(forecast))
    return ", ".join(parts)


def _estimate(forecast: Forecast) -> Iterator[str]:
    making = forecast.to_make
    unknown = sum(row.seconds is None for row in making)
    total = sum(row.seconds or 0.0 for row in making)
    if unknown < len(making):
        yield f"about {forecast.seconds:.1f} s ({total:.1f} s one after another)"
    if unknown:
        yield f"{unknown} never made here, so of unknown time"
    if forecast.fetch:
        yield f"{shown(forecast.fetch)} to download"
    if any(row.fetch is None for row in making):
        yield "and a tarball of unknown size"
