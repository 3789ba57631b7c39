"""`transport = { kind = "vde", vnl = "vde:///run/vde.ctl" }`: a Virtual Distributed Ethernet, by `vde_plug`.

UML itself runs the host's `vde_plug` (Debian: package vdeplug) when the interface comes up, and does not say if there
is none. A sandbox has no programs of the host, so this needs `launch.sandbox = "none"`; in a sandbox, use `bess` or
`fd`. No privilege is needed.

The distribution's kernels have it from 6.12 on; 6.1 has not.

Source: arch/um/drivers/vector_user.c user_init_vde_fds; vde_plug(1); strings of the kernels' programs.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from umlbuild.kinds.transports.base import TransportModel
from umlbuild.kinds.transports.names import Word


def _no_option(value: str) -> str:
    if value.startswith("-"):
        raise ValueError(f"{value!r} would be an option of vde_plug")
    return value


Argument = Annotated[Word, AfterValidator(_no_option)]


class Vde(TransportModel):
    """A VDE network."""

    MINIMUM: ClassVar[tuple[int, int]] = (6, 12)
    HOST_NETWORK: ClassVar[bool] = True
    RUNS_PROGRAM: ClassVar[str] = "vde_plug"

    kind: Literal["vde"] = "vde"
    vnl: Argument
    """The network's locator, e.g. "vde:///run/vde.ctl", "vxvde://239.1.2.3", "switch:///run/sw"."""
    descr: Argument | None = None
    """How the machine is called in a switch's list; UML says "UML"."""
    port: int | None = Field(default=None, ge=1, le=65_535)
    """The switch's port to use; any by default."""
    mode: Annotated[str, Field(pattern="^[0-7]{3,4}$")] | None = None
    """Permissions of the port, in octal digits."""
    group: Argument | None = None
    """Group of the port."""

    def options(self) -> tuple[tuple[str, str], ...]:
        pairs = [("vnl", self.vnl)]
        for name in ("descr", "port", "mode", "group"):
            value = getattr(self, name)
            if value is not None:
                pairs.append((name, str(value)))
        return tuple(pairs)
