"""Debian packages, pinned: what the resolver found and what the packages stage fetches."""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.specs.model import Model, Spec

Archive = Literal["debian", "security"]


class DebPin(Model):
    """One binary package of a Debian archive, exactly."""

    name: str
    version: str
    architecture: str
    size: int
    """Bytes of the .deb."""
    sha256: str
    path: str
    """Below the archive's root, e.g. "pool/main/b/bash/bash_5.2.15-2+b2_amd64.deb"."""
    archive: Archive = "debian"

    @property
    def filename(self) -> str:
        """The .deb's own name."""
        return self.path.rsplit("/", 1)[-1]


class LockedDeb(DebPin):
    """A package in a lock, for people: also where it was found. Specs dump it as the DebPin that they declare, so
    that no key depends on the suite.
    """

    suite: str
    """The first suite that had it, e.g. "bookworm" or "bookworm-security"."""
    base: bool | None = None
    """Whether it is there without the packages that the recipe names: those are installed first, for all recipes that
    only name others. None: not, or the root lacks one of those.
    """


class PackagesSpec(Spec):
    """The packages stage. Output: `pool/<filename>` for each pin and, with `suite`, a repository around it:
    `dists/<suite>/{Release,main/binary-<arch>/Packages}`, unsigned (each byte was checked against its pin).
    """

    STAGE: ClassVar[str] = "packages"

    suite: str | None
    """The suite that the repository claims to be; None: only the .deb files."""
    architecture: str
    pins: tuple[DebPin, ...]
    """Sorted by name."""
