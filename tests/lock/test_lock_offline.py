"""A real root file system, made in a network namespace without any network, from what was vendored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import bundles
import pytest

from umlbuild.host.rootless import owners

pytestmark = pytest.mark.build


@pytest.mark.skipif(owners().missing is not None, reason="no namespaces here")
def test_a_vendored_recipe_builds_without_any_network(open_place: Path) -> None:
    project = open_place / "online"
    project.mkdir()
    shutil.copyfile(bundles.PROJECT / "recipes/hello.toml", project / "hello.toml")
    env = {key: value for key, value in os.environ.items() if key != "UMLBUILD_OFFLINE"}
    vendor = [sys.executable, "-m", "umlbuild.cli", "vendor", "hello.toml", str(open_place / "vendored")]
    done = subprocess.run(
        vendor, cwd=project, env={**env, "UMLBUILD_CACHE": str(bundles.CACHE)}, timeout=600, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    here = open_place / "vendored"
    env = {key: value for key, value in env.items() if not key.startswith("UMLBUILD_")}
    build = [*owners().prefix(), sys.executable, "-m", "umlbuild.cli", "build", "hello.toml", "--locked", "--offline"]
    # No apt sources and no lists of the host are needed either: an empty directory hides them.
    (here / "empty").mkdir()
    hidden = " && ".join(f"mount --bind empty {name}" for name in ("/etc/apt", "/var/lib/apt/lists"))
    argv = [*build[: build.index(sys.executable)], "sh", "-c", f'{hidden} && exec "$@"', "sh",
            *build[build.index(sys.executable) :]]  # fmt: skip
    done = subprocess.run(argv, cwd=here, env=env, timeout=600, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (here / "dist/hello/run").is_file()

    # And it really is offline: without one package the build names it, and asks nobody.
    gone = max(here.glob("cache/downloads/*/*.deb"), key=lambda path: path.stat().st_size)
    gone.unlink()
    shutil.rmtree(here / "cache/packages")
    shutil.rmtree(here / "cache/prebuilt_kernel")
    shutil.rmtree(here / "cache/bundle")
    shutil.rmtree(here / "cache/configure")
    done = subprocess.run(argv, cwd=here, env=env, timeout=600, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "user-mode-linux" in done.stderr + done.stdout
    assert "is not among the downloads of this cache" in done.stderr + done.stdout
