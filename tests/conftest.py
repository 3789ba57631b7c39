"""Options and fixtures of all tests, their order and their lanes.

What needs a kernel of 7.x comes last, and is built meanwhile. With several workers (a whole `doit check` has two) the
tests that start machines and look at what these have of the host, or leave there, share one of them, in their order. Of
the rest each directory is a unit.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

NEED_KERNELS = {
    "test_escape_attempts.py", "test_image_boot.py", "test_kernel_trees.py", "test_machine_jail.py",
    "test_machine_landlock.py", "test_machine_matrix.py", "test_machine_scope.py", "test_machine_shipped.py",
    "test_network_packets.py", "test_network_router.py",
}  # fmt: skip
NEED_A_KERNEL = {"test_image_btrfs.py": ("test_data_disk",)}
"""The same for single tests of a file."""
MACHINES = "machines"
WATCH_THE_HOST = ("escape", "machine", "runtime", "usernet")
MANY = 300
"""Tests before those, for which a build in the background pays."""

_warmup = pytest.StashKey[subprocess.Popen[bytes]]()


# A busy machine makes no property wrong; pytest-timeout ends what hangs.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


def pytest_configure() -> None:
    """Under nohup, or in the background of a script, SIGHUP or SIGINT is ignored; what we start would inherit that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (needs_kernels(item), lane_of(item.path) != MACHINES))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The lanes, in the order of their first tests: the machines' is the longest by far."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = lambda nodeid: lane_of(config.rootpath / nodeid.partition("::")[0])
    return scheduler


@functools.cache
def lane_of(path: Path) -> str:
    """That of the tests that watch the host, else the directory's; what waits for a kernel of 7.x by itself."""
    if path.parent.name in WATCH_THE_HOST and "pytest.mark.boot" in path.read_text():
        return MACHINES
    return path.parent.name + (" 7.x" if path.name in NEED_KERNELS else "")


def needs_kernels(item: pytest.Item) -> bool:
    name = item.path.name
    return name in NEED_KERNELS or item.name in NEED_A_KERNEL.get(name, ())


def pytest_collection_finish(session: pytest.Session) -> None:
    before = sum(not needs_kernels(item) for item in session.items)
    if before < MANY or before == len(session.items) or session.config.option.collectonly:
        return
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":  # one is enough
        return
    argv = [sys.executable, str(Path(__file__).with_name("warmup.py"))]
    session.config.stash[_warmup] = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )  # the tests that need it say what is wrong


def pytest_sessionfinish(session: pytest.Session) -> None:
    child = session.config.stash.get(_warmup, None)
    if child is not None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user can reach (pytest's own are closed)."""
    with tempfile.TemporaryDirectory(prefix="umlbuild-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)
