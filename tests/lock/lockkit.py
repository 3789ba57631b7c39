"""A tiny signed archive that a whole recipe can be resolved from, and the command line in a project beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from rootfskit import make_deb
from test_rootfs_apt import publish

from umlbuild import lock as locks
from umlbuild.lock import Lock

SUITES = ("stone", "stone-updates", "stone-security", "trixie", "trixie-updates", "trixie-security")
RECIPE: dict[str, Any] = {
    "format": 1, "name": "demo", "kernel": {"source": "prebuilt"}, "image": {"kind": "ext4"},
    "rootfs": {"suite": "stone", "init": {"kind": "script", "command": ["/bin/sh"]}, "packages": ["tool"]},
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """A project, a cache and an archive."""

    home: Path
    url: str
    gnupg: Path
    site: Path

    def add(self, name: str, version: str, depends: str = "") -> None:
        """One more package in the archive."""
        make_deb(self.site, name, version, depends)

    def drop(self, name: str, version: str) -> None:
        """A package that the archive has no more."""
        next(self.site.glob(f"pool/**/{name}_{version}_amd64.deb")).unlink()

    def publish(self) -> None:
        """Sign what is in the archive now, and forget the lists that were read."""
        for suite in SUITES:
            publish(self.site, suite, self.gnupg)
        shutil.rmtree(self.home / "cache/apt", ignore_errors=True)

    def recipe(self, packages: Sequence[str]) -> None:
        """Write the recipe."""
        data = {**RECIPE, "rootfs": {**RECIPE["rootfs"], "packages": list(packages)}}
        (self.home / "demo.toml").write_text(tomli_w.dumps(data))

    @property
    def environment(self) -> dict[str, str]:
        """Where the archive is, and whose signature it has."""
        return {"UMLBUILD_MIRROR": self.url, "UMLBUILD_SECURITY_MIRROR": self.url,
                "UMLBUILD_KEYRING": str(self.gnupg / "good.gpg")}  # fmt: skip

    def umlbuild(self, *words: str, **env: str) -> tuple[int, str]:
        """Run a verb; its exit code and all that it says."""
        base = {key: value for key, value in os.environ.items() if not key.startswith("UMLBUILD_")}
        base |= self.environment
        done = subprocess.run(
            [sys.executable, "-m", "umlbuild.cli", *words], cwd=self.home, env={**base, **env}, timeout=120,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def lock(self) -> Lock:
        """The lock as it is now."""
        file = self.home / "demo.lock.toml"
        return locks.parse(file.read_text(), file, "demo.toml")

    def base(self) -> list[str]:
        """The locked packages that stand in the base of the root."""
        return [pin.name for pin in self.lock().rootfs if pin.base]

    def versions(self) -> dict[str, str]:
        """The locked versions of the root's packages."""
        return {pin.name: pin.version for pin in self.lock().rootfs}
