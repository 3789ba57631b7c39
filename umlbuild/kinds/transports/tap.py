"""`transport = { kind = "tap", ifname = "tap0" }`: a tap interface of the host. The usual choice.

    [[network]]
    transport = { kind = "tap", ifname = "tap0" }
    address = "192.168.4.2/30"
    gateway = "192.168.4.1"
    [network.host]
    address = "192.168.4.1/30"

The interface must exist and belong to the user who starts the machine: `sudo dist/NAME/net up` makes it so. UML
without a name and without privilege would try for ever, so the name is required. UML needs no privilege for a tap of
its user's, but it must be in the host's network namespace, where it can see all interfaces.

It panics kernels with several CPUs (SMP) when the interface comes up.

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
    PANICS_SMP: ClassVar[bool] = True

    kind: Literal["tap"] = "tap"
    ifname: Ifname
    """Name of the host's tap interface."""

    @property
    def egress_device(self) -> str | None:
        return self.ifname

    @property
    def host_paths(self) -> tuple[str, ...]:
        return ("/dev/net/tun",)

    @property
    def claims(self) -> tuple[tuple[str, object], ...]:
        return (("ifname", self.ifname),)

    def options(self) -> tuple[tuple[str, str], ...]:
        return (("ifname", self.ifname),)
