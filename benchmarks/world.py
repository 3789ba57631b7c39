"""Where the measures are made: a directory with an own cache, and the recipes that they build."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import Failed, seconds

PROJECT = Path(__file__).resolve().parents[1]
BUILD_S = 600.0
KERNEL_S = 3600.0

# Seeds: what a used cache has of downloads, and of kernels that would take minutes to compile.
_SEEDS = ("downloads", "apt", "kernel", "prebuilt_kernel", "tools")

_RECIPE = """\
format = 1
name = "{name}"
[kernel]
source = {{ kind = "prebuilt", suite = "trixie" }}
[rootfs]
suite = "bookworm"
hostname = "{hostname}"
init = {init}
bootstrap = "{bootstrap}"
packages = [{packages}]
[image]
kind = "ext4"
size = "auto+16M"
[launch]
memory = "{memory}M"
"""

UP = b"BENCH-UP"
"""What the tiny init prints."""

_INIT = f"""
[[rootfs.files]]
path = "/bench-init"
mode = "0755"
content = '''
#!/bin/sh
echo {UP.decode()} >/dev/tty1
mount -t proc proc /proc
echo o >/proc/sysrq-trigger
sleep 5
'''
"""


@dataclass(frozen=True)
class World:
    """One run's directory."""

    root: Path

    @property
    def cache(self) -> Path:
        """Its own store, removed with it."""
        return self.root / "cache"

    @property
    def env(self) -> Mapping[str, str]:
        """What every side sees: nothing it writes lands outside."""
        return {
            "UMLBUILD_CACHE": str(self.cache), "HOME": str(self.root / "home"),
            "XDG_CACHE_HOME": str(self.root / "home/.cache"), "XDG_STATE_HOME": str(self.root / "home/.state"),
            "UMLBUILD_ALLOW_ROOT": "1", "PYTHONPATH": str(PROJECT),
        }  # fmt: skip

    def seed(self, other: Path) -> None:
        """Take over (as links where possible) downloads and compiled kernels of another cache."""
        (self.root / "home").mkdir(parents=True)
        self.cache.mkdir(mode=0o755)
        for name in _SEEDS:
            if (other / name).is_dir():
                shutil.copytree(other / name, self.cache / name, symlinks=True, copy_function=_link)

    def recipe(
        self, name: str, *, hostname: str = "bench", init: str = '"busybox"', packages: str = "", memory: int = 128,
        bootstrap: str = "mmdebstrap",
    ) -> Path:
        """Write a recipe; the path of its file."""
        path = self.root / f"{name}.toml"
        path.write_text(
            _RECIPE.format(
                name=name, hostname=hostname, init=init, packages=packages, memory=memory, bootstrap=bootstrap
            )
        )
        return path

    def build(self, *recipes: Path, verb: str = "build", deadline_s: float = BUILD_S) -> float:
        """Seconds of one build, as a user types it. Raises: Failed."""
        names = ",".join(path.name for path in recipes)
        argv = [*self.doit(), verb, f"recipe={names}"]
        return seconds(argv, cwd=self.root, deadline_s=deadline_s, env=self.env)

    def doit(self) -> list[str]:
        """The program."""
        return [sys.executable, "-m", "umlbuild.cli"]

    def entry(self, stage: str) -> Path:
        """The only (or newest) entry of a stage."""
        entries = [path for path in (self.cache / stage).iterdir() if not path.name.startswith(".")]
        return max(entries, key=lambda path: path.stat().st_mtime)

    def forget(self, *stages: str) -> None:
        """Remove all entries of stages."""
        for stage in stages:
            shutil.rmtree(self.cache / stage, ignore_errors=True)


def router(world: World) -> Path:
    """recipes/router.toml in the world, with its lock if it has one (then a seeded kernel fits), and a tiny init."""
    source = PROJECT / "recipes"
    if (source / "router.lock.toml").is_file():
        shutil.copy(source / "router.lock.toml", world.root)
    shutil.copytree(source / "router", world.root / "router", dirs_exist_ok=True)
    path = world.root / "router.toml"
    path.write_text((source / "router.toml").read_text() + _INIT)
    return path


def remove(root: Path) -> None:
    """Remove what a run has made; not if something is mounted below it.

    Raises: Failed that names the mount.
    """
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        mounted = Path(line.split()[1])
        if mounted.is_relative_to(root.resolve()):
            raise Failed(f"{mounted} is mounted and was left: umount it, then remove {root}")
    shutil.rmtree(root, ignore_errors=True)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
