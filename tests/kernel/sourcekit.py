"""The source of a 7.x kernel, a small kernel built from it as a user does, and a boot in an empty root."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bundles
import pytest
import tomli_w

from umlbuild import digest
from umlbuild.host import process
from umlbuild.host.elf import linkage_of
from umlbuild.host.store import Store
from umlbuild.plan.bundle import Plan
from umlbuild.project import plan_recipe
from umlbuild.specs.packages import DebPin
from umlbuild.tasks.make import Site, make

PROJECT = bundles.CACHE / "tests" / "kernel"
STATUS = 7
"""What the guest's program ends with."""
BOOT_S = 120


def recipe(name: str, source: dict[str, Any]) -> dict[str, Any]:
    """One small machine for every source: the same configuration, so that their kernels can be compared.

    It is that of the other tests' kernel, whose objects ccache has.
    """
    return {
        "format": 1,
        "name": name,
        "kernel": {"source": source, **({"options": bundles.options_7()} if source["kind"] != "prebuilt" else {})},
        "rootfs": {
            "bootstrap": "extract",
            "init": {"kind": "script", "command": ["/usr/bin/sh", "-c", f"uname -r; exit {STATUS}"]},
        },
        "image": {"kind": "ext4"},
    }


@dataclass(frozen=True)
class Built:
    """What a build of `recipe` left in the store."""

    kernel: Path
    image: Path


def plan(path: Path, cache: Path = bundles.CACHE) -> Plan:
    return plan_recipe(path, resolve=False, note=lambda _text: None, cache=cache)


def built(name: str, source: dict[str, Any], project: Path = PROJECT) -> Built:
    """Build the kernel and the image of a source, as a user does."""
    project.mkdir(parents=True, exist_ok=True)
    path = project / f"{name}.toml"
    path.write_text(tomli_w.dumps(recipe(name, source)))
    bundles.output_of_build(path, project, "image")
    bundles.output_of_build(path, project, "kernel")
    parts = plan(path).parts
    store = Store(bundles.CACHE)
    kernel, image = (store.path(parts[part].stage, parts[part].key) for part in ("kernel", "image"))
    return Built(kernel, image / "root.img")


def tree_7() -> Path:
    """The unpacked source of the 7.x kernel that the other tests build; in the store, so only to be read."""
    PROJECT.mkdir(parents=True, exist_ok=True)
    path = PROJECT / "source-7.toml"
    path.write_text(tomli_w.dumps(recipe("source-7", {"kind": "debian", "suite": "trixie-backports"})))
    plan = plan_recipe(path, resolve=True, note=lambda _text: None, cache=bundles.CACHE)
    (step,) = (step for step in plan.parts["kernel"].walk() if step.stage == "kernel_source")
    site = Site(bundles.CACHE, plan.mirrors)
    make(step, site, lambda _text: None)
    return site.entry(step) / "linux"


def fingerprint(tree: Path) -> str:
    """A digest of every name, mode, time and content below a directory."""
    total = hashlib.sha256()
    for directory, names, files in os.walk(tree):
        names.sort()
        for name in sorted([*files, *names]):
            path = Path(directory, name)
            info = path.lstat()
            total.update(f"{path.relative_to(tree)} {info.st_mode} {info.st_mtime_ns} {info.st_uid}\n".encode())
            if path.is_symlink():
                total.update(os.readlink(path).encode())
            elif path.is_file():
                total.update(path.read_bytes())
    return total.hexdigest()


def fetched(name: str, pool: Path) -> DebPin:
    """A package of the host's own apt sources, in `pool`."""
    pool.mkdir(parents=True, exist_ok=True)
    got = subprocess.run(
        ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name],
        cwd=pool, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if got.returncode:
        pytest.skip(f"{name} cannot be fetched here: {got.stderr.strip()[-200:]}")
    (deb,) = pool.glob(f"{name}_*.deb")
    version = deb.name.split("_")[1].replace("%3a", ":")
    return DebPin(
        name=name, version=version, architecture="all", size=deb.stat().st_size, sha256=digest.of_file(deb),
        path=f"pool/{deb.name}",
    )  # fmt: skip


def boot_in_an_empty_root(kernel: Path, image: Path, directory: Path, words: Sequence[str] = ()) -> tuple[int, str]:
    """Boot where there is nothing but the kernel's entry, /dev/null, memory and the disk: (status, console).

    A dynamic kernel's `lib/` is mounted where its `interpreter` and Debian's loader look. No /proc.
    """
    directory.mkdir()
    disk = directory / "root.img"
    subprocess.run(["cp", "--sparse=always", str(image), str(disk)], check=True, timeout=60)
    disk.chmod(0o600)
    mounts = ["--ro-bind", str(kernel / "linux"), "/linux"]
    if linkage_of(kernel / "linux").interpreter is not None:
        loader = (kernel / "interpreter").read_text().strip()
        mounts += ["--ro-bind", str(kernel / "lib" / Path(loader).name), loader]
        mounts += ["--ro-bind", str(kernel / "lib"), "/lib/x86_64-linux-gnu"]
        mounts += ["--setenv", "LD_PRELOAD", "/lib/x86_64-linux-gnu/xstate.so"]
    console = directory / "console"
    argv = [
        "setarch", "-R", "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
        "--clearenv", "--dev-bind", "/dev/null", "/dev/null", "--size", str(192 << 20), "--tmpfs", "/dev/shm", *mounts,
        "--bind", str(directory), "/state", "--chdir", "/state", "--remount-ro", "/", "/linux", "mem=128M",
        "uml_dir=/state/", "umid=u", "con=null", "con0=null,fd:2", "con1=fd:0,fd:1", "ssl=null", "noreboot", "quiet",
        "ubd0d=/state/root.img", "console=tty0", "root=/dev/ubda", "rw", "init=/usr/lib/umlbuild/script-init", *words,
    ]  # fmt: skip
    status = process.run(
        argv, log=directory / "log", stdout=console, cwd=directory, timeout_s=BOOT_S, ok=range(256)
    )
    return status, console.read_text(errors="replace")
