"""`source = { kind = "debian" }`: the kernel sources that Debian ships as linux-source-X.Y.

The suite need not be the root file system's: a backports suite gives an old release a new kernel. The
newest version is taken unless one is named; the lock remembers which.

    [kernel]
    source = { kind = "debian", suite = "trixie-backports", version = "7.3" }

Source: packages linux-source-* of the archive; each holds one /usr/src/linux-source-X.Y.tar.xz.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator
from typing_extensions import override

from umlbuild.kinds.kernels.base import KernelModel, upstream_of
from umlbuild.kinds.kernels.wish import PackageWish
from umlbuild.specs.kernel import DebSource
from umlbuild.specs.packages import DebPin

_UPSTREAM = re.compile(r"\d+\.\d+")
_DEBIAN = re.compile(r"(\d+\.\d+)(\.\d+)?[A-Za-z0-9.+~]*-[A-Za-z0-9.+~]+")


def _version(value: str) -> str:
    if not _UPSTREAM.fullmatch(value) and not _DEBIAN.fullmatch(value):
        raise ValueError(f'{value!r} is no kernel version ("7.3") and no Debian one ("7.3.4-1~bpo13+1")')
    return value


class Debian(KernelModel):
    """A linux-source package of a Debian suite."""

    kind: Literal["debian"] = "debian"
    suite: str | None = None
    """Suite that has the package, e.g. "trixie-backports"; default: the root file system's suite."""
    version: Annotated[str, AfterValidator(_version)] | None = None
    """Kernel version ("7.3": the newest package of it) or exact Debian version ("7.3.4-1~bpo13+1");
    default: the newest that the suite has."""
    package: str | None = None
    """Name of the package, if it is not called linux-source-X.Y."""

    @override
    def wanted(self, root_suite: str) -> PackageWish:
        package = self.package
        if package is None and self.version is not None:
            found = re.match(_UPSTREAM, self.version)
            assert found is not None, "validated"
            package = f"linux-source-{found[0]}"
        exact = self.version if self.version is not None and not _UPSTREAM.fullmatch(self.version) else None
        return PackageWish(
            suite=self.suite or root_suite,
            package=package,
            pattern="" if package else r"linux-source-\d+\.\d+",
            version=exact,
        )

    @override
    def source(self, pin: DebPin | None, digest: str | None) -> DebSource:
        assert pin is not None and digest is None, "a linux-source package has a pin and no digest"
        return DebSource(pin=pin)

    @override
    def version_of(self, pin: DebPin | None = None) -> tuple[int, int] | None:
        if pin is not None:
            return upstream_of(pin.version)
        return upstream_of(self.version or self.package or "")
