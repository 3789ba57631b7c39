"""`bootstrap = "debootstrap"`: the classic one; the same result, more slowly.

    [rootfs]
    bootstrap = "debootstrap"

Source: debootstrap(8) 1.0.128 and its functions: with `container=lxc` it makes no device nodes (which a
user namespace may not) and mounts nothing over /dev; experiments A4.
"""

from __future__ import annotations

from typing import Literal

from umlbuild.specs.model import Model
from umlbuild.specs.rootfs import Method

# The one script that all suites of Debian since buster are links to; newer suites than the host knows, too.
_SCRIPT = "/usr/share/debootstrap/scripts/sid"


class Debootstrap(Model):
    """debootstrap, a shell script that needs nothing but dpkg inside the root."""

    kind: Literal["debootstrap"] = "debootstrap"

    def method(self, suite: str, architecture: str) -> Method:
        """All packages are named; apt, which it adds by itself, is left out by the stage where unwanted."""
        return Method(
            makes="tree",
            argv=(
                "debootstrap",
                "--variant=minbase",
                "--no-check-gpg",
                "--merged-usr",
                f"--arch={architecture}",
                "--include={packages}",
                "--exclude={unwanted}",
                suite,
                "{target}",
                "file://{repository}",
                _SCRIPT,
            ),
            environment=(("container", "lxc"),),
        )

    def layer(self, suite: str, architecture: str) -> None:
        """It only starts from nothing."""
