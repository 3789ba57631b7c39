"""Machines driven from Python, really booting; and guests and callers that behave badly."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bundles
import handmade
import pytest
from handmade import IDLE, bundle, status

from umlbuild.errors import HostError
from umlbuild.runtime.failures import AgentLost, GuestFailed, GuestTimeout, MachineEnded, NotUp
from umlbuild.runtime.machine import Machine, Outcome
from umlbuild.runtime.mconsole import MconsoleError

pytestmark = pytest.mark.boot

FLOOD = "while :; do echo flood flood flood flood flood flood flood >/dev/tty1; done &\n" + IDLE


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(handmade.CACHE))
    monkeypatch.setenv("UMLBUILD_ALLOW_ROOT", "1")
    yield
    assert not bundles.homes("umlm-*", tmp_path)
    assert not list((tmp_path / "tmp").iterdir())


@pytest.fixture(params=[("busybox", "bwrap"), ("minbase", "bwrap"), ("minbase", "landlock")], ids="-".join)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """A machine that is up, of each userland; and one without mconsole."""
    root, sandbox = request.param
    with Machine.start(bundle(tmp_path / "b", root=root, sandbox=sandbox, memory_mib=128)) as machine:
        machine.wait_up(60)
        yield machine


def floods_both_streams(machine: Machine) -> None:
    sizes = {"out": 0, "err": 0}

    def count(name: str, block: bytes) -> None:
        sizes[name] += len(block)

    big = 50 << 20
    result = machine.exec(
        f"head -c {big} /dev/zero & head -c {big} /dev/zero >&2; wait", timeout_s=120,
        on_stdout=lambda block: count("out", block), on_stderr=lambda block: count("err", block),
    )  # fmt: skip
    assert result.ok and sizes == {"out": big, "err": big}


def test_a_machines_day(machine: Machine, tmp_path: Path) -> None:
    """Everything that needs no machine of its own, in one boot."""
    assert machine.agent.release == handmade.kernel_version(handmade.kernel())
    result = machine.exec("echo out; echo err >&2; exit 3")
    assert (result.status, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert machine.exec(["printf", "%s", "no newline"]).stdout == b"no newline"
    assert machine.exec(["printf", "%s,", "it's", "a b", "*", "$HOME", ""]).stdout == b"it's,a b,*,$HOME,,"
    assert machine.exec(["echo", "x" * 100_000]).stdout == b"x" * 100_000 + b"\n"
    assert machine.exec("pwd; echo $A", cwd="/usr", env={"A": "b c"}).stdout == b"/usr\nb c\n"
    assert machine.exec("kill -9 $$").status == 128 + 9
    assert machine.exec("/nonexistent").status == 127
    assert [machine.exec(f"exit {n}").status for n in (0, 1, 123, 255)] == [0, 1, 123, 255]

    every_byte = bytes(range(256)) * 300
    assert machine.exec("cat", stdin=every_byte).stdout == every_byte
    assert machine.exec("cat >&2", stdin=b"\0").stderr == b"\0"
    assert machine.exec("cat", stdin=b"").stdout == b""
    assert machine.exec("true", stdin=every_byte * 20).ok  # not read
    assert machine.exec("head -c 1; sleep 0", stdin=every_byte).stdout == b"\0"

    with pytest.raises(GuestTimeout) as caught:  # on a busy host its first line may take a second
        machine.exec("echo partial; trap '' TERM; while :; do :; done", timeout_s=4)
    assert caught.value.stdout == b"partial\n" and caught.value.exit_code == 124
    began = time.monotonic()
    assert machine.exec("sleep 77 & echo left behind").stdout == b"left behind\n"
    assert time.monotonic() - began < 10
    machine.exec("pkill sleep || killall sleep || true")
    assert machine.agent.ping(5)

    floods_both_streams(machine)

    source = tmp_path / "source"
    (source / "sub dir").mkdir(parents=True)
    (source / "random").write_bytes(os.urandom(5 << 20))
    (source / "sub dir" / "run").write_text("#!/bin/sh\necho ran\n")
    (source / "sub dir" / "run").chmod(0o755)
    machine.copy_in(source, "/tmp/new/place")
    assert machine.exec(["/tmp/new/place/sub dir/run"]).stdout == b"ran\n"
    machine.copy_out("/tmp/new/place", tmp_path / "back")
    assert (tmp_path / "back" / "random").read_bytes() == (source / "random").read_bytes()
    assert (tmp_path / "back" / "sub dir" / "run").stat().st_mode & 0o111
    machine.copy_in(source / "random", "/tmp/one")
    machine.copy_out("/tmp/one", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == (source / "random").read_bytes()
    with pytest.raises(GuestFailed, match="absent"):
        machine.copy_out("/absent", tmp_path / "absent")
    with pytest.raises(GuestFailed):
        machine.copy_in(source, "/proc/x/y")

    outcome = machine.stop()
    assert outcome == Outcome("exit", 0)
    with pytest.raises(MachineEnded):
        machine.exec("true")


def test_mconsole_as_uml_mconsole(tmp_path: Path) -> None:
    # uml_mconsole's own socket is in /tmp: from within a sandbox UML could not answer it.
    with Machine.start(bundle(tmp_path / "b", sandbox="none"), options=["--no-sandbox"]) as machine:
        machine.wait_up(60)
        for command in ("version", "config ubd0", "proc filesystems", "help"):
            ours = machine.mconsole(command)
            if theirs := shutil.which("uml_mconsole"):
                done = subprocess.run(
                    [theirs, str(machine.mconsole_path), command], capture_output=True, timeout=10, check=True
                )
                # It appends its own commands to "help".
                assert done.stdout.decode().removeprefix("OK ").strip().startswith(ours.strip())
        with pytest.raises(MconsoleError, match="Unknown command"):
            machine.mconsole("frobnicate")
        machine.mconsole("stop")
        assert not machine.agent.ping(0.5)
        machine.mconsole("go")
        assert machine.agent.ping(5)
        assert machine.mconsole("sysrq s", 10) is not None


def test_status_of_the_guest(tmp_path: Path) -> None:
    with Machine.start(bundle(tmp_path / "b", status(42))) as machine:
        assert machine.outcome(30) == Outcome("exit", 42)
        with pytest.raises(MachineEnded, match="powered off with status 42"):
            machine.wait_up(5)
        assert "guest-says-hello" in "\n".join(machine.console.lines())


def test_flood(tmp_path: Path) -> None:
    with Machine.start(bundle(tmp_path / "b", FLOOD)) as machine:
        machine.wait_up(60)
        assert machine.exec("echo still here", timeout_s=30).stdout == b"still here\n"
        deadline = time.monotonic() + 30
        while machine.console.total < 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert machine.console.total > 1 << 20
        assert len(machine.console.tail()) <= 64 * 1024
        assert machine.stop(power_off_s=20).kind in ("exit", "killed")


def test_panic_while_a_command_runs(tmp_path: Path) -> None:
    with Machine.start(bundle(tmp_path / "b")) as machine:
        machine.wait_up(60)
        began = time.monotonic()
        with pytest.raises(MachineEnded, match="panicked") as caught:
            machine.exec("sleep 1; echo c >/proc/sysrq-trigger; sleep 100", timeout_s=90)
        assert time.monotonic() - began < 20 and caught.value.exit_code == 126
        assert machine.outcome() == Outcome("panic", 126)


def test_plug_pulled_while_a_command_runs(tmp_path: Path) -> None:
    with Machine.start(bundle(tmp_path / "b")) as machine:
        machine.wait_up(60)
        threading.Timer(1, os.kill, (machine.pid, signal.SIGKILL)).start()
        with pytest.raises(MachineEnded):
            machine.exec("sleep 100", timeout_s=60)


def test_stopped_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umlbuild.runtime.agent.LOST_AFTER_S", 2.0)
    with Machine.start(bundle(tmp_path / "b")) as machine:
        machine.wait_up(60)
        with pytest.raises(AgentLost):
            machine.exec("for a in $(pidof sh); do [ $a = 1 ] || [ $a = $$ ] || kill -STOP $a; done", timeout_s=2)
        assert machine.stop(power_off_s=5, cad_s=20) == Outcome("exit", 0)  # Ctrl-Alt-Del still works


def test_hung_kernel_is_killed(tmp_path: Path) -> None:
    with Machine.start(bundle(tmp_path / "b")) as machine:
        machine.wait_up(60)
        machine.mconsole("stop")
        began = time.monotonic()
        machine.stop(power_off_s=1, cad_s=1, halt_s=1, kill_s=5)
        assert time.monotonic() - began < 20
        assert machine.outcome() is not None


def test_no_agent(tmp_path: Path) -> None:
    quiet = bundle(tmp_path / "b", cmdline=("rw", "init=/bin/sleep", "--", "1000"))
    with Machine.start(quiet) as machine:
        with pytest.raises(NotUp, match="its agent is silent"):
            machine.wait_up(4)
        machine.kill()


def test_refusal(tmp_path: Path) -> None:
    directory = bundle(tmp_path / "b")
    with Machine.start(directory, memory="lots") as machine, pytest.raises(MachineEnded, match="not a size"):
        machine.wait_up(20)
    with pytest.raises(HostError, match="not a bundle"):
        Machine.start(tmp_path / "absent")


def test_life_has_a_limit(tmp_path: Path) -> None:
    with Machine.start(bundle(tmp_path / "b"), timeout_s=3) as machine:
        assert machine.outcome(30) == Outcome("timeout", 124)


def test_reboot_and_go_on(tmp_path: Path) -> None:
    with Machine.start(bundle(tmp_path / "b"), reboot=True) as machine:
        machine.wait_up(60)
        with pytest.raises(AgentLost, match="rebooted"):
            machine.exec("reboot -f; sleep 100", timeout_s=60)
        assert machine.exec("echo again").stdout == b"again\n"


def test_killed_caller(tmp_path: Path) -> None:
    """SIGKILL to the program that drives a machine ends the machine."""
    directory = bundle(tmp_path / "b")
    code = f"""
import time
from pathlib import Path
from umlbuild.runtime.machine import Machine
machine = Machine.start(Path({str(directory)!r}))
machine.wait_up(60)
print(machine._home, flush=True)
time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=handmade.PROJECT) as child:
        assert child.stdout is not None
        home = Path(child.stdout.readline().decode().strip())
        assert handmade.processes_in(home)
        child.kill()
    deadline = time.monotonic() + 10
    while home.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not home.exists() and not handmade.processes_in(home)


# --- the commands -------------------------------------------------------------------------------------------


def umlbuild(*words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "umlbuild.cli", *words], capture_output=True, timeout=timeout_s, check=False,
        stdin=subprocess.DEVNULL, cwd=handmade.PROJECT,
    )  # fmt: skip


def test_exec_of_a_bundle(tmp_path: Path) -> None:
    directory = str(bundle(tmp_path / "b"))
    done = umlbuild("exec", directory, "--", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"out\n", b"err\n")
    assert umlbuild("exec", "--timeout", "1", directory, "--", "sleep", "60").returncode == 124
    assert umlbuild("exec", directory, "--", "sh", "-c", "echo c >/proc/sysrq-trigger").returncode == 126
    assert umlbuild("exec", "--memory", "x", directory, "--", "true").returncode == 125


def test_run_in_the_foreground(tmp_path: Path) -> None:
    assert umlbuild("run", str(bundle(tmp_path / "b", status(7)))).returncode == 7


def test_a_detached_machine(tmp_path: Path) -> None:
    directory, name = str(bundle(tmp_path / "b")), f"t{os.getpid()}"
    assert umlbuild("run", "--detach", "--ephemeral", "--name", name, directory).returncode == 0
    try:
        taken = umlbuild("run", "--detach", "--ephemeral", "--name", name, directory)
        assert taken.returncode == 2 and b"runs under this name already" in taken.stderr
        assert name.encode() in umlbuild("ps").stdout
        began = time.monotonic()
        done = umlbuild("exec", "--env", "A=b", name, "--", "sh", "-c", "echo $A; echo err >&2; exit 4")
        assert (done.returncode, done.stdout, done.stderr) == (4, b"b\n", b"err\n")
        done = umlbuild("exec", name, "--", "head", "-c", "3000000", "/dev/zero")
        assert len(done.stdout) == 3_000_000
        # A client that is killed takes its command with it, and leaves the machine to others.
        with subprocess.Popen(
            [sys.executable, "-m", "umlbuild.cli", "exec", name, "--", "sh", "-c", "echo on; sleep 100"],
            stdout=subprocess.PIPE, cwd=handmade.PROJECT,
        ) as client:  # fmt: skip
            assert client.stdout is not None and client.stdout.readline() == b"on\n"
            client.kill()
        assert umlbuild("exec", "--timeout", "30", name, "--", "echo", "next").stdout == b"next\n"
        assert time.monotonic() - began < 60
    finally:
        assert umlbuild("stop", name).returncode == 0
    gone = umlbuild("exec", name, "--", "true")
    assert gone.returncode == 2 and b"no machine runs under this name" in gone.stderr
    assert name.encode() not in umlbuild("ps").stdout
