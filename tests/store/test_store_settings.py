"""Settings of a machine that shape no bytes, and so are in no key."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from umlbuild.errors import HostError
from umlbuild.host import process
from umlbuild.host.kbuild import Kbuild, ccache_directory
from umlbuild.specs.build import Build
from umlbuild.stages.context import Context, jobs


def test_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UMLBUILD_JOBS", raising=False)
    here = len(os.sched_getaffinity(0))
    alone = Context(tmp_path, tmp_path / "log")
    said = Context(tmp_path, tmp_path / "log", build=Build(jobs=5))
    assert (alone.cores(), alone.cores(6), said.cores(), said.cores(6)) == (here, here + 6, 5, 5)
    monkeypatch.setenv("UMLBUILD_JOBS", "3")
    assert alone.cores(6) == said.cores(6) == 3


@pytest.mark.parametrize("word", ["0", "-1", "many", "1.5", "\u00b2"])
def test_no_jobs(word: str) -> None:
    with pytest.raises(HostError, match="UMLBUILD_JOBS"):
        jobs({"UMLBUILD_JOBS": word})


@pytest.mark.skipif(process.find("ccache") is None, reason="ccache is not installed")
@pytest.mark.skipif(process.find("gcc") is None, reason="gcc is not installed")
def test_ccache_uses_its_shared_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the environment of the kernel's make, a second cache finds what the first one compiled."""
    monkeypatch.delenv("CCACHE_DIR", raising=False)
    monkeypatch.setenv("CCACHE_REMOTE_STORAGE", f"file:{tmp_path / 'storage'}")
    (tmp_path / "x.c").write_text("int x;\n")
    said = ""
    for name in ("one", "two"):
        cache = ccache_directory(tmp_path / name / "work/step")
        env = Kbuild(tmp_path, tmp_path, tmp_path / "log", ccache=cache)._environment()
        env["PATH"] = os.environ["PATH"]
        subprocess.run(
            ["ccache", "gcc", "-c", "x.c", "-o", f"{name}.o"], cwd=tmp_path, env=env, check=True, timeout=60
        )
        said = subprocess.run(
            ["ccache", "--print-stats"], env=env, check=True, timeout=60, capture_output=True, text=True
        ).stdout
    assert "remote_storage_hit\t1" in said
