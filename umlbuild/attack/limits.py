"""What a bundle's launcher promises to limit; lowered in the private copy: what gets through shall be small."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOG_MIB = 1
_MEMORY_MIB = 32
_PROCESSES = 300
"""Also where nothing confines a machine: a number that an attempt passes, to show that it could."""


@dataclass(frozen=True)
class Limits:
    """Of one private copy."""

    processes: int | None
    """How many processes and threads a machine may be on the host; None: its launcher promises nothing."""
    log_bytes: int
    memory_mib: int
    """`run --memory` of attempts that fill it."""
    place_bytes: int
    """The size of the place where such a machine's memory lives."""


def lower(run: Path, recipe: dict[str, Any]) -> Limits:
    """Lower the settings of a launcher, switch off its comparison of files, and tell what it limits now."""
    text = run.read_text()
    text = re.sub(r"(?ms)^SUMS='[^']*'$", "SUMS=''", text)  # the kernel will be another one, the rest is a copy
    text, found = re.subn(r"(?m)^LOG_MIB=\d+$", f"LOG_MIB={_LOG_MIB}", text)
    assert found
    text, found = re.subn(r"(?m)^PROCESSES=\d+$", f"PROCESSES={_PROCESSES}", text)
    assert found
    # Landlock has no user namespace in which the machine's processes alone would count, and promises nothing.
    processes = None if recipe["launch"]["sandbox"]["kind"] == "landlock" else _PROCESSES
    slack = re.search(r"(?m)^MEMORY_SLACK_MIB=(\d+)", text)
    run.write_text(text)
    return Limits(
        processes=processes, log_bytes=_LOG_MIB << 20, memory_mib=_MEMORY_MIB,
        place_bytes=(_MEMORY_MIB + (int(slack[1]) if slack else 0)) << 20,
    )  # fmt: skip
