"""`umlbuild exec BUNDLE -- CMD` passes a piped or redirected stdin on, really booting; and never waits in silence."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import handmade
import pytest

from umlbuild import cli_machine

pytestmark = pytest.mark.boot

DIGEST = ["sh", "-c", "sha256sum | head -c 64"]
BINARY = bytes(range(256)) * 4096


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A private world, in which nothing is left."""
    (tmp_path / "tmp").mkdir()
    yield {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "UMLBUILD_ALLOW_ROOT": "1",
        "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(handmade.CACHE),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }  # fmt: skip
    assert not list((tmp_path / "tmp").iterdir())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return handmade.bundle(tmp_path / "b")


def argv_of(directory: Path, command: Sequence[str], *options: str) -> list[str]:
    return [sys.executable, "-m", "umlbuild.cli", "exec", "--timeout", "60", *options, str(directory), "--", *command]


def run(
    argv: Sequence[str], env: dict[str, str], data: bytes | None = None, stdin: int | IO[bytes] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, env=env, input=data, stdin=stdin, capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize("data", [b"", b"hi\n", b"\0", BINARY], ids=["nothing", "a line", "NUL", "1 MiB binary"])
def test_a_pipe_reaches_the_command(directory: Path, env: dict[str, str], data: bytes) -> None:
    done = run(argv_of(directory, DIGEST), env, data)
    assert (done.returncode, done.stdout.decode()) == (0, hashlib.sha256(data).hexdigest()), done.stderr


def test_the_rest_of_a_redirected_file(directory: Path, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("first\nsecond\nthird\n")
    with (tmp_path / "lines").open("rb", buffering=0) as file:
        file.seek(len("first\n"))
        done = run(argv_of(directory, ["sh", "-c", "cat; exit 3"]), env, stdin=file)
    assert (done.returncode, done.stdout) == (3, b"second\nthird\n"), done.stderr


def test_a_terminal_is_not_read(directory: Path, env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"typed\n")
    try:
        done = run(argv_of(directory, ["sh", "-c", "readlink /proc/self/fd/0; cat"]), env, stdin=theirs)
        assert (done.returncode, done.stdout) == (0, b"/dev/null\n"), done.stderr
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("shell", ["exec \"$@\" <&-", "exec \"$@\" </dev/null"], ids=["closed", "null"])
def test_without_stdin(directory: Path, env: dict[str, str], shell: str) -> None:
    done = run(["sh", "-c", shell, "sh", *argv_of(directory, ["cat"])], env)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr


def test_too_much_is_refused_before_anything_starts(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "b").mkdir()
    with (tmp_path / "big").open("wb") as file:
        file.truncate(cli_machine.STDIN_LIMIT + 1)
    with (tmp_path / "big").open("rb") as file:
        done = run(argv_of(tmp_path / "b", ["cat"]), env, stdin=file)
    assert done.returncode == 2
    assert b"more than 64 MiB" in done.stderr and b"fix: " in done.stderr


def test_one_that_never_ends_is_said_and_given_up(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "b").mkdir()
    reading, writing = os.pipe()
    began = time.monotonic()
    try:
        done = run(argv_of(tmp_path / "b", ["cat"], "--timeout", "5"), env, stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 2 and time.monotonic() - began < 30
    assert b"waiting for the end of stdin" in done.stderr
    assert b"did not end in time" in done.stderr and b"</dev/null" in done.stderr
