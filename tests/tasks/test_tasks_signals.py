"""A build that is told to end, killed, or not alone: nothing left running, nothing wrong in the store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakeworld import World

LIMIT_S = 5.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "project")


def sleepers(world: World) -> list[int]:
    """The processes that still carry this world's environment."""
    mark = f"FAKE_RAN={world.ran_file}".encode()
    found: list[int] = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            if (
                mark in (proc / "environ").read_bytes()
                or str(world.directory).encode() in (proc / "cmdline").read_bytes()
            ):
                found.append(int(proc.name))
        except OSError:
            continue
    return found


def programs(*seconds: str) -> list[int]:
    """The `sleep` programs that the fake stages start: our gate gives them an environment of their own."""
    found: list[int] = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.decode(errors="replace") in seconds for word in words):
            found.append(int(proc.name))
    return found


def wait_for_program(seconds: str) -> None:
    """Until such a program runs, and has become what it is: setpriv comes before it."""
    deadline = time.monotonic() + 20
    while not any(b"setpriv" not in words_of(pid) for pid in programs(seconds)):
        assert time.monotonic() < deadline, f"no program {seconds}"
        time.sleep(0.02)


def words_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"setpriv"  # gone


def wait_gone(*seconds: str, within_s: float = 2.0) -> list[int]:
    end = time.monotonic() + within_s
    while (left := programs(*seconds)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def end(build: subprocess.Popen[str], number: int) -> tuple[float, str, str]:
    begin = time.monotonic()
    build.send_signal(number)
    try:
        out, err = build.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        build.kill()  # or its programs would be found by every test that follows
        build.communicate(timeout=20)
        raise
    return time.monotonic() - begin, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("flags", [(), ("-n", "0"), ("-n", "2", "-P", "process")])
def test_signal_ends_the_build_and_its_programs(
    world: World, number: signal.Signals, flags: tuple[str, ...]
) -> None:
    world.recipe("router", kernel="sleep", rootfs="sleep")
    build = world.start("build", *flags, "recipe=router.toml")
    world.wait_until_ran("fake_kernel")
    took, out, err = end(build, number)
    assert took < LIMIT_S
    assert build.returncode == 128 + number
    assert f"ended by {number.name}; run again to go on" in err or flags[-1:] == ("process",)
    assert "FAILED" not in out
    assert "Traceback" not in out + err
    assert wait_gone("60.125") == []
    assert world.entries("fake_kernel") == world.entries("fake_rootfs") == []


MAIN_THREAD_IS_DEAF = """
import contextlib, queue, signal, threading
from umlbuild.errors import UserError
from umlbuild.host import process
from umlbuild.tasks import signals

results = queue.Queue()

def work():
    with signals.step():
        with contextlib.suppress(UserError):  # Cancelled, or the end of the program that was seen first
            process.run(["sleep", "60.875"], log=None, timeout_s=100)
    results.put(signals.received())

signals.install()
threading.Thread(target=work).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("waits", flush=True)
raise SystemExit(results.get() + 128)
"""


def test_a_main_thread_that_waits_need_not_wake_for_a_signal() -> None:
    build = subprocess.Popen([sys.executable, "-c", MAIN_THREAD_IS_DEAF], stdout=subprocess.PIPE, text=True)
    assert build.stdout is not None
    try:
        assert build.stdout.readline() == "waits\n"
        end_by = time.monotonic() + 10
        while not programs("60.875"):
            assert time.monotonic() < end_by
            time.sleep(0.05)
        took, _, _ = end(build, signal.SIGINT)
        assert took < LIMIT_S - 2  # not by its deadline
        assert build.returncode == 130
        assert wait_gone("60.875") == []
    finally:
        build.kill()
        build.stdout.close()
        build.wait(10)


def test_programs_that_ignore_the_signal_are_killed_with_their_children(world: World) -> None:
    world.recipe("router", kernel="children")
    build = world.start("build", "recipe=router.toml")
    world.wait_until_ran("fake_kernel")
    time.sleep(0.3)
    took, _, _ = end(build, signal.SIGTERM)
    assert took < LIMIT_S
    assert build.returncode == 143
    assert wait_gone("60.375", "60.625") == []


def test_a_step_that_never_looks_up_is_not_waited_for(world: World) -> None:
    world.recipe("router", kernel="think", rootfs="children")
    build = world.start("build", "recipe=router.toml")
    world.wait_until_ran("fake_kernel")
    world.wait_until_ran("fake_rootfs")
    time.sleep(0.3)
    took, _, _ = end(build, signal.SIGINT)
    assert took < LIMIT_S
    assert build.returncode == 130
    assert wait_gone("60.375", "60.625") == []


def test_second_signal_ends_at_once(world: World) -> None:
    world.recipe("router", kernel="think")
    build = world.start("build", "recipe=router.toml")
    world.wait_until_ran("fake_kernel")
    build.send_signal(signal.SIGINT)
    time.sleep(0.5)
    took, _, _ = end(build, signal.SIGINT)
    assert took < 1.5
    assert build.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_build_then_again_is_as_if_undisturbed(
    world: World, tmp_path: Path, number: signal.Signals
) -> None:
    calm = World(tmp_path / "calm")
    calm.recipe("router", kernel="slow", rootfs="slow")
    assert calm.doit("build", "recipe=router.toml").code == 0
    world.recipe("router", kernel="slow", rootfs="slow")
    build = world.start("build", "recipe=router.toml")
    world.wait_until_ran("fake_kernel")
    end(build, number)
    assert not (world.directory / "dist").exists()
    assert world.entries("fake_kernel") == []
    again = world.doit("build", "recipe=router.toml")
    assert again.code == 0
    assert tree(world.directory / "dist") == tree(calm.directory / "dist")
    assert [path.name for path in world.entries("fake_kernel")] == [
        path.name for path in calm.entries("fake_kernel")
    ]


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_children_die_with_a_killed_build(world: World) -> None:
    world.recipe("router", kernel="sleep")
    build = world.start("build", "recipe=router.toml")
    wait_for_program("60.125")
    end(build, signal.SIGKILL)
    assert wait_gone("60.125") == []


def test_the_children_of_children_die_with_a_killed_build(world: World) -> None:
    world.recipe("router", kernel="children")
    build = world.start("build", "recipe=router.toml")
    wait_for_program("60.375")
    wait_for_program("60.625")
    end(build, signal.SIGKILL)
    assert wait_gone("60.375", "60.625") == []


def test_two_builds_at_once_make_each_step_once(world: World) -> None:
    world.recipe("router", kernel="slow", rootfs="slow")
    builds = [world.start("build", "recipe=router.toml") for _ in range(2)]
    outs = [build.communicate(timeout=60) for build in builds]
    assert [build.returncode for build in builds] == [0, 0], outs
    assert world.ran() == ["fake_bundle", "fake_image", "fake_kernel", "fake_rootfs"]


def test_a_signal_while_only_others_tasks_run(tmp_path: Path) -> None:
    dodo = (
        "import fakeworld, time, os\nfakeworld.install()\nfrom umlbuild.tasks import *\n"
        "def task_long():\n"
        "    ran = os.environ['FAKE_RAN']\n"
        "    return {'actions': [lambda: (open(ran, 'w').write('long'), time.sleep(60))]}\n"
    )
    world = World(tmp_path / "foreign", dodo)
    world.recipe("router")
    build = world.start("-n", "0", "long", "recipe=router.toml")
    world.wait_until_ran("long")
    took, _, _ = end(build, signal.SIGINT)
    assert took < 2
    assert build.returncode == 130
    assert sleepers(world) == []
    assert os.path.exists(world.ran_file)
