"""A release on other Debians: unpacked and started by a plain user inside minimal root file systems.

There are only the essential packages and bubblewrap; nothing of umlbuild, no Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import bundles
import pytest

from umlbuild.host import mirrors, process
from umlbuild.host.store import Store

WORKED = 42
NOBODY = 65534

pytestmark = [
    pytest.mark.slow,  # three root file systems
    pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root enters another root file system as another user"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed"),
]  # fmt: skip


def tree(suite: str) -> Path:
    """The minimal root file system of a suite, made once for each cache."""
    place = bundles.CACHE / "tests" / "debians"
    place.mkdir(parents=True, exist_ok=True)
    with Store(bundles.CACHE).locked("tests", f"debian-{suite}"):
        if not (place / suite).exists():
            mirror = mirrors.mirrors(None, os.environ)["debian"]
            part = place / f"{suite}.tar"
            process.run(
                ["mmdebstrap", "--variant=essential", "--include=bubblewrap", suite, str(part), mirror],
                log=place / f"{suite}.log", timeout_s=600,
            )  # fmt: skip
            scratch = place / f".{suite}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            exclude = "--exclude=./dev/*"
            process.run(["tar", "-xpf", str(part), "-C", str(scratch), exclude], log=None, timeout_s=120)
            part.unlink()
            scratch.rename(place / suite)
    return place / suite


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an unpacked release; what it was made from is not reachable from inside."""
    project = tmp_path_factory.mktemp("project")
    init = {"kind": "script", "command": ["/bin/sh", "-c", f"exit {WORKED}"]}
    recipe = bundles.recipe("given", bundles.PREBUILT, init, "ext4", launch={"memory": "128M"})
    bundles.build(recipe, project)
    said = bundles.output_of_build(project / "given.toml", project, "release")
    assert "given-0 is ready" in said
    place = tmp_path_factory.mktemp("unpacked")
    place.chmod(0o755)
    archive = project / "dist" / "given-0" / "given-0.tar.zst"
    subprocess.run(["tar", "--zstd", "-xf", archive], cwd=place, check=True, timeout=120)
    return place


def start(unpacked: Path, suite: str) -> subprocess.CompletedProcess[str]:
    root = tree(suite)
    there = 'grep -q "$0" /etc/os-release /etc/debian_version && ! command -v python3'
    inside = ["sh", "-c", f"{there} && exec /opt/given-0/run --ephemeral"]
    return subprocess.run(
        [
            "bwrap", "--unshare-pid", "--unshare-net", "--die-with-parent", "--ro-bind", root, "/", "--dev", "/dev",
            "--proc", "/proc", "--perms", "1777", "--tmpfs", "/tmp", "--ro-bind", unpacked, "/opt", "--clearenv",
            "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", "--setenv", "HOME", "/tmp",
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *inside, suite,
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_release_runs_there(unpacked: Path, suite: str) -> None:
    done = start(unpacked, suite)
    assert done.returncode == WORKED, (done.returncode, done.stderr[-3000:])


def test_a_bubblewrap_that_is_too_old_is_named(unpacked: Path) -> None:
    """Bullseye's 0.4.1 has neither --clearenv nor --size."""
    done = start(unpacked, "bullseye")
    assert done.returncode == 125
    assert "bwrap is too old" in done.stderr and "fix: " in done.stderr
