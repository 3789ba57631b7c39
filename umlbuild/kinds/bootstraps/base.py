"""What every bootstrapper can do. Pure."""

from __future__ import annotations

from typing import Protocol

from umlbuild.specs.rootfs import Method


class Bootstrapper(Protocol):
    """One way to make a root file system out of a local repository, offline."""

    @property
    def kind(self) -> str:
        """Its name in recipes."""
        ...

    def method(self, suite: str, architecture: str) -> Method:
        """The command that makes a root of exactly the repository's packages."""
        ...

    def layer(self, suite: str, architecture: str) -> Method | None:
        """The command that adds exactly the repository's packages to a root; None: it only makes roots at once."""
        ...
