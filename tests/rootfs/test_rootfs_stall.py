"""A program that waits for ever is ended once it writes nothing any more; one that writes is left alone."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from umlbuild.errors import FetchError, HostError
from umlbuild.host import diskfull, process
from umlbuild.host.stall import Stall

WRITES = "import pathlib, time\nfor n in range({times}):\n pathlib.Path('grows').write_text('x' * n); time.sleep(.2)\n"


def run(place: Path, program: str) -> int:
    return process.run(
        [sys.executable, "-c", program], log=None, timeout_s=60, cwd=place, watch=Stall(place, patience_s=1.5),
    )  # fmt: skip


def test_a_program_that_waits_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(FetchError, match=r"nothing was written for 1\.5 s"):
        run(tmp_path, WRITES.format(times=5) + "time.sleep(50)")
    assert time.monotonic() - began < 30


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diskfull, "free", lambda place: 1 << 20)
    with pytest.raises(HostError, match="the disk is full"):
        run(tmp_path, "import time; time.sleep(50)")


def test_a_slow_program_is_left_alone(tmp_path: Path) -> None:
    assert run(tmp_path, WRITES.format(times=25)) == 0
