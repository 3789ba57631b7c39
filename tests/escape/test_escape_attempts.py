"""Attempts to break out: in its jail a machine holds against all of them; without it, most succeed."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import bundles
import pytest

from umlbuild.attack import lanes, limits
from umlbuild.attack.attempt import Verdict
from umlbuild.attack.canaries import NOBODY
from umlbuild.attack.suite import ATTEMPTS, Row, Suite
from umlbuild.cli_attack import status_of
from umlbuild.errors import HostError

OPEN_WITHOUT_JAIL = Path(__file__).with_name("open_without_jail.txt").read_text().split()
"""Measured. What depends on the host's kernel or on what lies in its directories is left out."""
SUITE_S = 400

SHARES = [
    {"host": "/nonexistent/one", "guest": "/mnt/one"},
    {"host": "/nonexistent/two", "guest": "/mnt/two", "writable": True},
]
NETWORK = [{"transport": {"kind": "fd", "fd": 99}, "address": "none"}]
"""A device without anything behind it; on 7.x it would ask for one more kernel (NETWORK_OPTIONAL)."""
MEMORY = {"code-memfd", "code-memory"}
"""Only a cgroup limits these."""
WEAK = {"6.1": MEMORY | {"guest-mem", "guest-kcore", "guest-bpf", "guest-lockdown"}, "7.x": MEMORY | {"guest-lockdown"}}
"""A prebuilt kernel has its distribution's configuration; one with modules is not locked down."""
NEED_A_LIMIT = {attempt.name for attempt in ATTEMPTS if "limit of processes" in attempt.needs}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = our_mounts(), our_directories()
    yield
    assert our_mounts() == before[0]
    assert not our_directories() - before[1]


def our_directories() -> set[Path]:
    """Others may attack at the same time, too."""
    return {path for path in Path("/tmp").glob("umlattack-*") if path.stat().st_uid in (os.getuid(), NOBODY)}


def our_mounts() -> list[str]:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in mounts if re.search("umlattack|umlm-", line)]


def recipe(name: str, kernel: dict[str, Any], **more: Any) -> dict[str, Any]:
    network = {"network": NETWORK} if kernel is bundles.PREBUILT else {}
    return bundles.recipe(name, kernel, "busybox", "ext4", disk=[{"size": "16M"}], **network, **more)


@pytest.mark.boot
@pytest.mark.parametrize(("sandbox", "kernel"), [("bwrap", "6.1"), ("bwrap", "7.x"), ("landlock", "6.1")])
def test_the_jail_holds(sandbox: str, kernel: str, tmp_path: Path) -> None:
    """Root's machines run as nobody: those that run as root have no limit of processes."""
    source = bundles.PREBUILT if kernel == "6.1" else bundles.source_7()
    data = recipe(f"attacked-{sandbox[0]}{kernel[0]}", source, share=SHARES, launch={"sandbox": sandbox})
    bundle = bundles.build(data, tmp_path)
    rows = lanes.in_order(list(lanes.rows(bundle)))
    assert [row.name for row in rows] == [attempt.name for attempt in ATTEMPTS]
    assert not [row for row in rows if row.verdict == "open"]
    assert {row.name for row in rows if row.verdict == "weak"} == WEAK[kernel]
    untried = {row.name for row in rows if row.verdict == "not tried"}
    if sandbox == "landlock":
        untried -= NEED_A_LIMIT
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
        untried -= {"code-core"}
    assert untried == (set() if kernel == "6.1" else {"guest-flash"})


@pytest.mark.boot
def test_without_a_jail_they_succeed(tmp_path: Path) -> None:
    """So the jail is what holds, and the attempts would tell if it did not."""
    built = bundles.build(recipe("unjailed", bundles.PREBUILT, launch={"sandbox": "none"}), tmp_path)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="umlbuild-test-") as place:
        os.chmod(place, 0o777)
        subprocess.run(["cp", "-a", "--sparse=always", built, f"{place}/bundle"], check=True, timeout=120)
        ours, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=_attack, args=(Path(place), theirs))
        child.start()
        theirs.close()
        try:
            assert ours.poll(SUITE_S)
            verdicts = ours.recv()
        finally:
            child.kill()
            child.join()
    wrong = {name: verdicts[name] for name in OPEN_WITHOUT_JAIL if verdicts[name] != "open"}
    assert not wrong


def _attack(place: Path, pipe: Connection) -> None:
    """As an ordinary user: without a jail, root's attempts would harm the host."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    os.environ.update(HOME=str(place), TMPDIR=str(place), XDG_RUNTIME_DIR="")
    os.environ.pop("UMLBUILD_ALLOW_ROOT", None)
    pipe.send({row.name: row.verdict for row in lanes.rows(place / "bundle")})


def test_what_cannot_be_attacked(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="is not a bundle"):
        Suite(tmp_path)
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "recipe.toml").write_text('[launch.sandbox]\nkind = "none"\n')
    if os.getuid() == 0:
        with pytest.raises(HostError, match="no sandbox"):
            Suite(tmp_path, allow_root=True)


@pytest.mark.parametrize(
    ("verdicts", "strict", "status"),
    [
        ("held held", False, 0), ("held weak", False, 0), ("held weak", True, 1), ("open held", False, 1),
        ("not-tried held", True, 0),
    ],
)  # fmt: skip
def test_only_what_got_out_counts_unless_one_is_strict(verdicts: str, strict: bool, status: int) -> None:
    words: dict[str, Verdict] = {"held": "held", "weak": "weak", "open": "open", "not-tried": "not tried"}
    rows = [Row("x", "code", "", words[verdict], "") for verdict in verdicts.split()]
    assert status_of(rows, strict=strict) == status


RUN = "LOG_MIB=64\nPROCESSES=1024\nSUMS='1 2 linux\n3 4 root.img'\nMEMORY_SLACK_MIB=16 # why\n"


@pytest.mark.parametrize(
    ("text", "sandbox", "expected"),
    [
        (RUN, "bwrap", (300, 48 << 20)),
        (RUN, "landlock", (None, 48 << 20)),
        (RUN.replace("MEMORY_SLACK_MIB=16 # why\n", ""), "none", (300, 32 << 20)),
    ],
)
def test_the_limits_of_a_private_copy(
    text: str, sandbox: str, expected: tuple[int | None, int], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.write_text(text)
    found = limits.lower(run, {"launch": {"sandbox": {"kind": sandbox}}})
    assert (found.processes, found.place_bytes) == expected and found.log_bytes == 1 << 20
    assert run.read_text().startswith("LOG_MIB=1\n") and "SUMS=''\n" in run.read_text()
