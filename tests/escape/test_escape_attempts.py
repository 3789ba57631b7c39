"""Attempts to break out: in its jail a machine holds against all of them; without it, most succeed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import bundles
import pytest

from umlbuild.attack.canaries import NOBODY
from umlbuild.attack.suite import ATTEMPTS, Suite
from umlbuild.errors import HostError

OPEN_WITHOUT_JAIL = Path(__file__).with_name("open_without_jail.txt").read_text().split()
"""Measured. What depends on the host's kernel or on what lies in its directories is left out."""
SUITE_S = 400


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = Path("/proc/self/mountinfo").read_text(), set(Path("/tmp").glob("umlattack-*"))
    yield
    assert Path("/proc/self/mountinfo").read_text() == before[0]
    assert not set(Path("/tmp").glob("umlattack-*")) - before[1]


@pytest.mark.boot
@pytest.mark.parametrize("sandbox", ["bwrap", "landlock"])
def test_the_jail_holds(sandbox: str, tmp_path: Path) -> None:
    shares = [
        {"host": "/nonexistent/one", "guest": "/mnt/one"},
        {"host": "/nonexistent/two", "guest": "/mnt/two", "writable": True},
    ]
    data = bundles.recipe(f"attacked-{sandbox}", bundles.PREBUILT, "busybox", "ext4", share=shares,
                          launch={"sandbox": sandbox})  # fmt: skip
    bundle = bundles.build(data, tmp_path)
    with Suite(bundle, allow_root=True) as suite:
        rows = list(suite.rows())
    assert [(row.name, row.verdict, row.seen) for row in rows] == [(row.name, "held", "") for row in rows]
    assert len(rows) == len(ATTEMPTS) >= 100


@pytest.mark.boot
def test_without_a_jail_they_succeed(tmp_path: Path) -> None:
    """So the jail is what holds, and the attempts would tell if it did not."""
    data = bundles.recipe("unjailed", bundles.PREBUILT, "busybox", "ext4", launch={"sandbox": "none"})
    built = bundles.build(data, tmp_path)
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
    with Suite(place / "bundle") as suite:
        verdicts = {row.name: row.verdict for row in suite.rows()}
    pipe.send(verdicts)


def test_what_cannot_be_attacked(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="is not a bundle"):
        Suite(tmp_path)
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "recipe.toml").write_text('[launch.sandbox]\nkind = "none"\n')
    if os.getuid() == 0:
        with pytest.raises(HostError, match="no sandbox"):
            Suite(tmp_path, allow_root=True)
