"""The table: ratios first, then times, then the goal."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import OURS, Measure


def machine() -> dict[str, str]:
    """What the figures depend on; no names or paths of this machine."""
    model = _first("/proc/cpuinfo", "model name").partition(":")[2].strip()
    memory = (_first("/proc/meminfo", "MemTotal").split() or ["", "0"])[1]
    system = _first("/etc/os-release", "PRETTY_NAME").partition("=")[2].strip('"')
    return {
        "system": system,
        "kernel": platform.release(),
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory) >> 20} GiB",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def text_of(measures: Sequence[Measure]) -> str:
    """A Markdown table, one row for each side; a ratio is our least time by that side's."""
    lines = [
        "| measure | side | umlbuild ÷ side | least | median | runs | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for measure in measures:
        if measure.skipped:
            lines.append(f"| {measure.name} | – | | | | | not measured: {measure.skipped} |")
        ratios = measure.ratios()
        for row in measure.rows:
            if not row.seconds:
                lines.append(f"| {measure.name} | {row.name} | | | | 0 | {_one_line(row.failure)} |")
                continue
            ratio = f"**{ratios[row.name]:.2f}**" if row.name in ratios else ""
            goal = _goal(measure, row.name, min(row.seconds), ratios)
            lines.append(
                f"| {measure.name} | {row.name} | {ratio} | {_time(min(row.seconds))} | {_time(row.median)}"
                f" | {len(row.seconds)} | {goal} |"
            )
    return "\n".join(lines) + "\n"


def _goal(measure: Measure, name: str, least: float, ratios: dict[str, float]) -> str:
    if name == OURS and measure.goal_s is not None:
        return f"≤ {_time(measure.goal_s)}: {'met' if least <= measure.goal_s else 'missed'}"
    if name in ratios and measure.goal_ratio is not None:
        return f"≤ {measure.goal_ratio:g}: {'met' if ratios[name] <= measure.goal_ratio else 'missed'}"
    return ""


def _time(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _one_line(text: str) -> str:
    return " ".join(text.split())[-160:].replace("|", "/")


def _first(path: str, start: str) -> str:
    """The first line of a file that begins so, "" if there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(start)), "")
