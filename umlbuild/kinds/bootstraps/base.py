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
