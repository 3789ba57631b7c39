"""`transport = { kind = "tap", ifname = "tap0" }`: a tap interface of the host.

The interface must exist and belong to the user who starts the machine
(`ip tuntap add tap0 mode tap user NAME`): UML without a name and without privilege tries for ever.

Source: arch/um/drivers/vector_user.c user_init_tap_fds; uml-facts 2.2.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.kinds.transports.base import Sockets, TransportModel
from umlbuild.kinds.transports.names import Ifname


class Tap(TransportModel):
    """A tap interface."""

    HOST_NETWORK: ClassVar[bool] = True
    EGRESS: ClassVar[bool] = True
    SOCKETS: ClassVar[Sockets] = "none"

    kind: Literal["tap"] = "tap"
    ifname: Ifname
    """Name of the host's tap interface."""

    @property
    def egress_device(self) -> str | None:
        return self.ifname

    @property
    def host_paths(self) -> tuple[str, ...]:
        return ("/dev/net/tun",)

    def options(self) -> tuple[tuple[str, str], ...]:
        return (("ifname", self.ifname),)
