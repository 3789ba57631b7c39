"""The launcher, really booting. What it must leave behind is asserted after each test: nothing."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bundles
import handmade
import pytest
from handmade import bundle, status

from umlbuild.specs.launch import Disk

pytestmark = pytest.mark.boot

CAT = "cat </dev/tty1 >/dev/tty1 2>&1\nexec /off\n"
COUNT = """n=$(cat /count 2>/dev/null || echo 0)
echo $((n + 1)) >/count
echo $((n + 1)) >/proc/exitcode
exec /off
"""


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A private world for the launcher, which must be empty again at the end."""
    (tmp_path / "tmp").mkdir()
    given = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "UMLBUILD_ALLOW_ROOT": "1", "TERM": "dumb",
        "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(handmade.CACHE),
    }  # fmt: skip
    yield given
    mine = {path: found for path in bundles.homes("uml-*", tmp_path) if (found := handmade.processes_in(path))}
    for pid in {pid for found in mine.values() for pid in found}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not mine
    assert not list((tmp_path / "tmp").iterdir())


def started(directory: Path, env: dict[str, str], *options: str) -> tuple[subprocess.Popen[bytes], Path]:
    """A launcher in the background, and its instance directory once UML runs in it."""
    child = subprocess.Popen(
        [str(directory / "run"), *options], env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def instance() -> Path | None:
        for path in Path("/tmp").glob("uml-*"):
            if (path / "u" / "m" / "mconsole").exists() and os.readlink(path / "linux") == str(directory / "linux"):
                return path
        return None

    wait_for(lambda: instance() is not None)
    found = instance()
    assert found is not None
    return child, found


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [0, 1, 7, 123])
def test_the_guests_status(tmp_path: Path, env: dict[str, str], number: int) -> None:
    done = handmade.run([bundle(tmp_path / "b", status(number)) / "run"], env=env)
    assert done.returncode == number and done.stdout == b"guest-says-hello\r\n"


def test_panic(tmp_path: Path, env: dict[str, str]) -> None:
    done = handmade.run([bundle(tmp_path / "b", "echo c >/proc/sysrq-trigger\n") / "run"], env=env)
    assert done.returncode == 126 and b"kernel panicked" in done.stderr and b"sysrq" in done.stderr


def test_timeout(tmp_path: Path, env: dict[str, str]) -> None:
    done = handmade.run([bundle(tmp_path / "b") / "run", "--timeout", "2"], env=env)
    assert done.returncode == 124 and b"ended after 2 s" in done.stderr


def test_reboot(tmp_path: Path, env: dict[str, str]) -> None:
    again = "if [ -e /again ]; then echo 5 >/proc/exitcode; exec /off; fi\n: >/again\nsync\nreboot -f\n"
    directory = bundle(tmp_path / "b", again)
    assert handmade.run([directory / "run"], env=env).returncode == 5
    assert handmade.run([directory / "run", "--no-reboot"], env=env).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_signals_leave_nothing(tmp_path: Path, env: dict[str, str], number: signal.Signals) -> None:
    child, instance = started(bundle(tmp_path / "b"), env)
    assert handmade.processes_in(instance)
    child.send_signal(number)
    assert child.wait(10) == (128 + number if number != signal.SIGKILL else -number)
    # After SIGKILL the janitor is on its own, and takes a moment.
    wait_for(lambda: not instance.exists(), 5 if number == signal.SIGKILL else 0.1)
    assert not handmade.processes_in(instance)
    wait_for(lambda: not list((tmp_path / "tmp").iterdir()), 5)


STDINS = {
    "closed": lambda argv: ["sh", "-c", f"exec {argv} <&-"],
    "null": lambda argv: ["sh", "-c", f"exec {argv} </dev/null"],
    "pipe at its end": lambda argv: ["sh", "-c", f": | {argv}"],
    "all closed but stdout": lambda argv: ["sh", "-c", f"exec {argv} <&- 2>&-"],
}


@pytest.mark.parametrize("kind", STDINS)
def test_any_stdin(tmp_path: Path, env: dict[str, str], kind: str) -> None:
    directory = bundle(tmp_path / "b", "for i in $(seq 500); do echo line $i; done >/dev/tty1\n" + status(3))
    done = handmade.run(STDINS[kind](directory / "run"), env=env)
    assert done.returncode == 3
    assert done.stdout.count(b"\r\n") == 501  # nothing is lost


def test_piped_input_is_typed_and_ends(tmp_path: Path, env: dict[str, str]) -> None:
    done = handmade.run([bundle(tmp_path / "b", CAT) / "run"], env=env, stdin=b"one\ntwo without end")
    assert done.returncode == 0
    assert done.stdout.replace(b"\r", b"").count(b"one\n") == 2  # the terminal's echo, and cat
    assert done.stdout.endswith(b"two without end")


def test_terminal_is_restored(tmp_path: Path, env: dict[str, str]) -> None:
    directory = bundle(tmp_path / "b", "stty raw -echo </dev/tty1\necho up >/dev/tty1\n" + handmade.IDLE)
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    child = subprocess.Popen([str(directory / "run")], env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    seen = b""
    while b"up" not in seen:
        seen += os.read(ours, 4096)
    assert termios.tcgetattr(theirs) != before  # UML made it raw
    child.terminate()
    assert child.wait(10) == 143
    assert termios.tcgetattr(theirs) == before
    assert os.get_blocking(theirs)
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("name", ["plain", "a b,c:d", 'q"u\'ote $x', "ünï"])
def test_odd_paths_and_moves(tmp_path: Path, env: dict[str, str], name: str) -> None:
    directory = bundle(tmp_path / name / "bundle", COUNT, state="persistent")
    env["XDG_STATE_HOME"] = str(tmp_path / name / "state")
    assert handmade.run([directory / "run"], env=env).returncode == 1
    assert handmade.run([directory / "run"], env=env).returncode == 2
    moved = directory.rename(tmp_path / name / "moved, again")
    done = handmade.run([moved / "run"], env=env)
    assert done.returncode == 3, done.stderr
    assert b"Switching backing file" not in done.stderr
    (cow,) = (tmp_path / name / "state").rglob("*.cow")
    assert str(directory).encode() not in cow.read_bytes()[:4128]
    assert cow.stat().st_mode & 0o777 == 0o600
    assert handmade.run([moved / "run", "--ephemeral"], env=env).returncode == 1


def test_two_starts_on_one_state(tmp_path: Path, env: dict[str, str]) -> None:
    directory = bundle(tmp_path / "b", state="persistent")
    child, _ = started(directory, env)
    done = handmade.run([directory / "run"], env=env)
    assert done.returncode == 125 and f"in use by another start of this machine (process {child.pid})" in str(
        done.stderr
    )
    child.terminate()
    child.wait(10)
    assert handmade.run([directory / "run", "--timeout", "1"], env=env).returncode == 124  # the lock is free


def test_data_disk(tmp_path: Path, env: dict[str, str]) -> None:
    count = """n=$(head -c 1 /dev/ubdb | tr '\\0' 0)
echo $((n + 1)) >/dev/ubdb
echo $((n + 1)) >/proc/exitcode
exec /off
"""
    disks = [Disk(unit=1, file="disk1.img", id="abcdabcd")]
    directory = bundle(tmp_path / "b", count, disks=disks, state="persistent")
    assert handmade.run([directory / "run"], env=env).returncode == 1
    assert handmade.run([directory / "run"], env=env).returncode == 2
    assert handmade.run([directory / "run", "--ephemeral"], env=env).returncode == 1
    assert not any((directory / "disk1.img").read_bytes())  # the template is as it was
    (own,) = (tmp_path / "home").rglob("disk1-abcdabcd.img")
    assert own.stat().st_blocks * 512 < 1 << 20


def test_lpj_is_measured_once(tmp_path: Path, env: dict[str, str]) -> None:
    env["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    directory = bundle(tmp_path / "b", status(0))
    assert "lpj=" not in handmade.run([directory / "run", "--dry-run"], env=env).stdout.decode()
    assert handmade.run([directory / "run"], env=env).returncode == 0
    (file,) = (tmp_path / "cache" / "umlbuild").iterdir()
    value = file.read_text().strip()
    assert value.isdigit()
    assert f"lpj={value}\n" in handmade.run([directory / "run", "--dry-run"], env=env).stdout.decode()


def test_uml_that_cannot_start(tmp_path: Path, env: dict[str, str]) -> None:
    done = handmade.run([bundle(tmp_path / "b", status(0)) / "run", "--", *["x" * 1000] * 5], env=env)
    assert done.returncode == 125 and b"UML could not start" in done.stderr


def test_log(tmp_path: Path, env: dict[str, str]) -> None:
    log = tmp_path / "kernel log"
    done = handmade.run([bundle(tmp_path / "b", status(0)) / "run", "--log", str(log), "--", "loglevel=7"], env=env)
    assert done.returncode == 0 and b"Linux version" not in done.stderr and "Linux version" in log.read_text()
