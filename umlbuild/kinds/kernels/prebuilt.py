"""`source = { kind = "prebuilt" }`: the distribution's own UML kernel; nothing is compiled.

It is general, not small: almost everything is a module (IPv6, too: `modules = ["ipv6"]`), and its boot takes a second.
The C library of its suite comes with it, so the host's may be an older one.

    [kernel]
    source = { kind = "prebuilt" }

Source: package user-mode-linux (linux.uml, /usr/lib/uml/modules); measured: 6.1 of bookworm boots in 1.2 s.
"""

from __future__ import annotations

from typing import Literal, NoReturn

from typing_extensions import override

from umlbuild.kinds.kernels.base import KernelModel, upstream_of
from umlbuild.kinds.kernels.wish import PackageWish
from umlbuild.specs.packages import DebPin

PACKAGE = "user-mode-linux"
LIBRARIES = ("libc6", "libgcc-s1")
COMPILER = "tcc"
"""Makes the one library of the bundle's own (`host.xstate`): small, and of the same suite as the C library."""


class Prebuilt(KernelModel):
    """The user-mode-linux package of a Debian suite."""

    kind: Literal["prebuilt"] = "prebuilt"
    suite: str | None = None
    """Suite that has the package; default: the root file system's suite."""

    @override
    def wanted(self, root_suite: str) -> PackageWish:
        return PackageWish(suite=self.suite or root_suite, package=PACKAGE, libraries=(*LIBRARIES, COMPILER))

    @override
    def source(self, pin: DebPin | None, digest: str | None) -> NoReturn:
        raise AssertionError("a prebuilt kernel has no source")

    @override
    def version_of(self, pin: DebPin | None = None) -> tuple[int, int] | None:
        return upstream_of(pin.version) if pin is not None else None
