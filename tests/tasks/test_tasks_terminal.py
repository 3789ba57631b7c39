"""What a person sees: lines in place on a terminal, plain lines elsewhere; options after the verb; check."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakeworld import DOIT, World

from umlbuild.tasks import options, progress


def on_terminal(world: World, *words: str, env: dict[str, str] | None = None) -> str:
    """What doit writes to a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, os.fspath(DOIT), *words], cwd=world.directory, stdin=theirs, stdout=theirs,
        stderr=theirs, env=world.environment({"TERM": "xterm", "COLUMNS": "60", **(env or {})}),
    )  # fmt: skip
    os.close(theirs)
    text = b""
    end = time.monotonic() + 30
    try:
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    text += os.read(ours, 65536)
                except OSError:  # the other side is closed
                    break
            elif child.poll() is not None:
                break
    finally:
        os.close(ours)
        child.wait(timeout=10)
    return text.decode()


def test_terminal_has_one_line_per_running_step(tmp_path: Path) -> None:
    world = World(tmp_path / "project")
    world.recipe("router", kernel="slow", rootfs="slow")
    text = on_terminal(world, "build", "recipe=router.toml")
    both = re.search(r"(kernel slow … [\d.]+ s, half way)\r\n(rootfs slow … [\d.]+ s, half way)\r\n", text)
    assert both or re.search(r"rootfs slow … [\d.]+ s, half way\r\nkernel slow … [\d.]+ s, half way", text)
    assert "\x1b[1A\x1b[2K\x1b[1A\x1b[2K" in text
    assert re.search(r"kernel slow: done \([\d.]+ s\)\r\n", text)
    assert text.endswith("dist/router is ready; start it with dist/router/run\r\n")


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_escapes_where_they_are_not_wanted(tmp_path: Path, env: dict[str, str]) -> None:
    world = World(tmp_path / "project")
    world.recipe("router")
    assert "\x1b" not in on_terminal(world, "build", "recipe=router.toml", env=env)


def test_sign_of_life_without_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SIGN_OF_LIFE_S", 0.0)
    monkeypatch.setattr(progress, "_TICK_S", 0.01)
    stream = io.StringIO()
    lines = progress.Lines(stream, live=False)
    lines.begin("kernel")
    lines.note("kernel", "10 of 20")
    end = time.monotonic() + 5
    while "10 of 20" not in stream.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    lines.end("kernel", "done")
    lines.close()
    assert re.match(
        r"kernel …\n(kernel: [\d.]+ s(, 10 of 20)?\n)+kernel: done \([\d.]+ s\)\n$", stream.getvalue()
    )


def test_nothing_is_drawn_while_others_have_the_terminal() -> None:
    stream = io.StringIO()
    lines = progress.Lines(stream, live=True)
    lines.pause()
    lines.begin("kernel")
    assert stream.getvalue() == ""
    lines.resume()
    assert stream.getvalue().startswith("kernel … ")
    lines.close()
    assert stream.getvalue().endswith("\x1b[1A\x1b[2K")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["build", "-n", "2"], {"num_process": 2}),
        (["build", "recipe=a.toml", "-n3", "-c"], {"num_process": 3, "continue": True}),
        (["-n", "4", "build"], {}),
        (["other", "-n", "x", "build", "--process=1"], {"num_process": 1}),
        (["build", "-n", "many"], {}),
        (["build", "--unknown"], {}),
        (["list"], {}),
        ([], {}),
    ],
)
def test_options_after_the_verb(words: list[str], expected: dict[str, object]) -> None:
    assert options.after_verb(words, ("build", "kernel")) == expected


CHECK = """
from pathlib import Path
from umlbuild.host import needs
needs.install_what_tests_use = lambda note: ["some-package"]
from umlbuild.tasks import DOIT_CONFIG, check
def task_check():
    return check.task_of(Path(__file__).parent)
"""


def test_check_runs_pytest_and_passes_its_arguments(tmp_path: Path) -> None:
    world = World(tmp_path / "project", CHECK)
    (world.directory / "test_some.py").write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 0\n"
        "@pytest.mark.slow\ndef test_slow(): pass\n"
    )
    (world.directory / "pytest.ini").write_text("[pytest]\nmarkers = slow: slow\n")
    whole = world.doit("check")
    assert whole.code == 1
    assert "1 failed, 2 passed" in whole.out
    assert "tests are skipped: some-package" in whole.out
    assert "FAILED: the tests" in whole.out
    for words in (
        ("-k", "good"),
        ("-m", "slow"),
        ("-x", "-v", "-k", "good or slow"),
        ("test_some.py::test_good",),
        ("--", "--deselect", "test_some.py::test_bad"),
    ):
        result = world.doit("check", *words)
        assert result.code == 0, (words, result.out, result.err)
        assert re.search(r"=+ \d passed.* =+\n$", result.out), words
