"""What a kernel kind asks of Debian's archive; the resolver turns it into pins. Pure."""

from __future__ import annotations

from umlbuild.specs.model import Model


class PackageWish(Model):
    """One package: by name, or the newest whose whole name matches a pattern."""

    suite: str
    package: str | None = None
    """The exact name; None: the newest that `pattern` matches."""
    pattern: str = ""
    """Regular expression over whole package names."""
    version: str | None = None
    """The exact Debian version; None: the suite's newest."""
    libraries: tuple[str, ...] | None = None
    """Packages of the same suite with the shared libraries that the kernel runs with, and what makes one of them."""
