"""The benchmark program: it runs, cleans up after itself, and gives well-formed JSON. No figure is judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import CACHE, PROJECT

from benchmarks import table
from benchmarks.measure import Measure, Row, Side, interleaved
from benchmarks.programs import Failed, seconds


@pytest.mark.build
def test_quick_noop_gives_json_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", "noop", "--json", "-", "--work", str(tmp_path)],
        cwd=PROJECT, env={**os.environ, "UMLBUILD_CACHE": str(CACHE)}, timeout=600,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    data = json.loads(done.stdout)
    assert data["format"] == 1
    (measure,) = data["measures"]
    assert measure["name"] == "no-op" and not measure["skipped"]
    assert list(measure)[:2] == ["name", "ratios"]
    ours = measure["sides"]["umlbuild"]
    assert len(ours["seconds"]) == 3 and 0 < ours["min_s"] <= ours["median_s"]
    assert list(tmp_path.iterdir()) == []


def test_sides_run_in_turn_and_a_failed_one_is_left_out() -> None:
    order: list[str] = []

    def good() -> float:
        order.append("a")
        return 2.0 + len(order)

    def bad() -> float:
        order.append("b")
        raise Failed("no")

    rows = interleaved([Side("umlbuild", good), Side("peer", bad)], 3)
    assert order == ["a", "b", "a", "a"]
    assert rows[1].failure == "no" and rows[1].seconds == []
    assert "| peer |" in table.text_of([Measure("m", "", rows)])


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount")
def test_nothing_is_removed_below_a_mount(tmp_path: Path) -> None:
    (tmp_path / "run/proc").mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path\n"
        "from benchmarks.programs import Failed; from benchmarks.world import remove\n"
        "try: remove(Path(sys.argv[1]))\n"
        "except Failed as error: print(error)"
    )
    script = 'mount -t tmpfs none "$1/proc" && : >"$1/proc/kept" && "$2" -c "$3" "$1" && ls "$1/proc"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", str(tmp_path / "run"), sys.executable, code],
        cwd=PROJECT, timeout=60, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "is mounted and was left" in done.stdout and "kept" in done.stdout, done.stderr


def test_ratios_are_of_minima_and_goals_are_judged() -> None:
    measure = Measure("m", "", [Row("umlbuild", [3.0, 1.0]), Row("peer", [2.0, 4.0])], goal_s=0.5, goal_ratio=0.6)
    assert measure.ratios() == {"peer": 0.5}
    text = table.text_of([measure])
    assert "≤ 500 ms: missed" in text and "≤ 0.6: met" in text


@pytest.mark.parametrize(
    ("script", "until", "wrong"),
    [
        ("exec sleep 30", None, "not done after 0.3 s"),
        ("while :; do echo x; done", None, "not done after 0.3 s"),
        ("echo all; exit 3", None, "status 3: all"),
        ("echo other", b"word", "status 0: other"),
    ],
)
def test_a_program_has_a_deadline_and_must_do_it(script: str, until: bytes | None, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(Failed, match=wrong):
        seconds(["sh", "-c", script], cwd=tmp_path, deadline_s=0.3, until=until)
