"""Real bundles for tests: recipes as data, built by the product's own command into the project's cache."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tomli_w

from umlbuild import digest, kconfig
from umlbuild import lock as locks
from umlbuild.host import xstate
from umlbuild.host.identity import Identities
from umlbuild.host.store import Store
from umlbuild.kinds import symbols
from umlbuild.plan.helper import helper_step
from umlbuild.plan.kernel import xstate_source
from umlbuild.project import plan_recipe
from umlbuild.runtime.machine import Machine
from umlbuild.tasks.make import Site, make

PROJECT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("UMLBUILD_CACHE") or PROJECT / "cache")
BUILD_S = 1500
"""A kernel from a cold cache takes minutes on two cores."""

PREBUILT: dict[str, Any] = {"source": "prebuilt"}

_ALL_SYMBOLS = (
    symbols.EXT4, symbols.SQUASHFS, symbols.EROFS, symbols.EROFS_OPTIONAL, symbols.BTRFS, symbols.XFS,
    symbols.XFS_OPTIONAL, symbols.OVERLAY, symbols.SYSTEMD, symbols.SYSVINIT, symbols.BUSYBOX, symbols.SCRIPT,
    symbols.NETWORK, symbols.HOSTFS,
)  # fmt: skip


@functools.cache
def preload() -> Path:
    """`lib/xstate.so` for dynamic kernels that a test starts by hand."""
    store = Store(CACHE)
    key = digest.of_json([xstate_source(), xstate.GCC])
    with store.locked("tests", f"xstate-{key}"):
        place = CACHE / "tests" / f"xstate-{key}"
        if not (made := place / "lib" / xstate.NAME).exists():
            (place / "lib").mkdir(parents=True, exist_ok=True)
            xstate.put_beside(place / "linux", xstate_source(), xstate.GCC, work=place, log=None)
    return made


@functools.cache
def jail() -> Path:
    """The launcher's helper."""
    step = helper_step(Identities(CACHE).of)
    make(step, Site(CACHE), lambda _text: None)
    return Site(CACHE).entry(step) / "jail"


def options_7() -> dict[str, Any]:
    """Everything that any test's recipe contributes, and the shipped router's, so that all of them share one kernel."""
    fragment = PROJECT / "recipes" / "router" / "kernel.config"
    merged: dict[str, Any] = dict(kconfig.parse(fragment.read_text(), fragment.name))
    for group in _ALL_SYMBOLS:
        merged.update({name: value.strip('"') if value.startswith('"') else value for name, value in group.items()})
    return {**merged, "DUMMY": "m", "VETH": "m"}


def source_7() -> dict[str, Any]:
    """The `[kernel]` of a 7.x built from source, the same for every recipe."""
    return {
        "source": {"kind": "debian", "suite": "trixie-backports"},
        "options": options_7(),
        "modules": ["dummy"],
    }


def share_kernel(recipes: Path) -> None:
    """Give the router in a copy of the shipped recipes the kernel of `source_7`."""
    values = kconfig.render((name, kconfig.spelled(value)) for name, value in options_7().items())
    (recipes / "router" / "kernel.config").write_text(values)


@functools.cache
def kernel_7() -> Path:
    """The program of `source_7`, built if need be."""
    project = CACHE / "tests" / "kernel-7"
    project.mkdir(parents=True, exist_ok=True)
    path = project / "kernel-7.toml"
    path.write_text(tomli_w.dumps(recipe("kernel-7", source_7(), "systemd", "ext4")))
    output_of_build(path, project, "kernel")
    plan = plan_recipe(path, resolve=False, note=lambda _text: None, cache=CACHE)
    kernel = plan.parts["kernel"]
    return Store(CACHE).path(kernel.stage, kernel.key) / "linux"


def recipe(name: str, kernel: dict[str, Any], init: Any, image: str, **more: Any) -> dict[str, Any]:
    """A recipe's data; `more` are further top-level tables, merged over these."""
    rootfs: dict[str, Any] = {"init": init, **more.pop("rootfs", {})}
    return {
        "format": 1,
        "name": name,
        "kernel": kernel,
        "rootfs": rootfs,
        "image": {"kind": image, **more.pop("image", {})},
        "launch": {"memory": "256M", **more.pop("launch", {})},
        **more,
    }


def build(data: dict[str, Any], project: Path) -> Path:
    """Build a recipe as a user does, in `project`; the bundle's directory."""
    project.mkdir(parents=True, exist_ok=True)
    path = project / f"{data['name']}.toml"
    path.write_text(tomli_w.dumps(data))
    return build_file(path, project)


def build_file(path: Path, project: Path) -> Path:
    """Build the recipe in a file; the bundle's directory."""
    output_of_build(path, project)
    return project / "dist" / path.stem


def output_of_build(path: Path, project: Path, verb: str = "build") -> str:
    """Build the recipe in a file; what the build says."""
    lock = locks.path_of(path)
    if lock.exists() and f"format = {locks.FORMAT}\n" not in lock.read_text():
        lock.unlink()  # of a cache that is older than this version
    done = subprocess.run(
        [sys.executable, "-m", "umlbuild.cli", verb, str(path)],
        cwd=project, env={**os.environ, "UMLBUILD_CACHE": str(CACHE)}, timeout=BUILD_S,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout[-4000:] + done.stderr[-4000:])
    return done.stdout


def homes(pattern: str, below: Path) -> set[Path]:
    """Directories of machines in /tmp (`uml-*`, `umlm-*`) whose bundles are below a directory: others may have some.

    What has no kernel yet, or no more, is looked at again: it may be about to begin or to end.
    """
    found = set()
    for path in Path("/tmp").glob(pattern):
        for _ in range(100):
            try:
                linux = os.readlink(path / "linux")
            except PermissionError:  # another user's
                break
            except OSError:
                time.sleep(0.1)
                continue
            if linux.startswith(f"{below}/"):
                found.add(path)
            break
        else:
            found |= {path} if path.exists() else set()
    return found


def started(bundle: Path, *options: str, allow_root: bool = True) -> Machine:
    """The machine of a bundle, up; what it writes is forgotten."""
    machine = Machine.start(bundle, ephemeral=True, allow_root=allow_root, timeout_s=300, options=options)
    try:
        machine.wait_up(120)
    except BaseException:
        machine.close()
        raise
    return machine
