"""What every kernel source's model can do."""

from __future__ import annotations

import re

from umlbuild.kinds.kernels.wish import PackageWish
from umlbuild.specs.kernel import Source
from umlbuild.specs.model import Model
from umlbuild.specs.packages import DebPin


class KernelModel(Model):
    """One place that a kernel comes from."""

    def wanted(self, root_suite: str) -> PackageWish | None:
        """The Debian package to pin, None if there is none; `root_suite` is the root file system's."""
        raise NotImplementedError

    def source(self, pin: DebPin | None, digest: str | None) -> Source:
        """The source for the kernel-source stage, of the pin (Debian) or the tree's digest (tree).

        A prebuilt kernel has none: its package is the stage's own spec.
        """
        raise NotImplementedError

    def version_of(self, pin: DebPin | None = None) -> tuple[int, int] | None:
        """(major, minor) of the kernel, as far as the recipe or the pin tells it."""
        raise NotImplementedError


def upstream_of(text: str) -> tuple[int, int] | None:
    """The first X.Y in a name or version: (7, 3) of "linux-source-7.3", "7.3.4-1~bpo13+1" or "6.1um4+b13"."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None
