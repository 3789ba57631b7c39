"""`bootstrap = "extract"`: the named packages' files and nothing else; no maintainer script runs.

For roots of a few MB: a static busybox, or one program with its libraries. There is no dpkg database and
no configuration; /etc/passwd and its kin are Debian's fixed accounts.

    [rootfs]
    bootstrap = "extract"
    init = "busybox"

Source: deb(5); Debian policy 9.2.2 for the fixed accounts.
"""

from __future__ import annotations

from typing import Literal

from umlbuild.specs.model import Model
from umlbuild.specs.rootfs import Method


class Extract(Model):
    """Only unpacks."""

    kind: Literal["extract"] = "extract"

    def method(self, suite: str, architecture: str) -> Method:  # noqa: ARG002 - the same for every root
        """No program is needed: archives are merged as archives."""
        return Method(makes="unpacked")

    def layer(self, suite: str, architecture: str) -> None:
        """Its roots have no base: they hold what is named."""
