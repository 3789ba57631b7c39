"""`transport = { kind = "raw", ifname = "eth1" }`: the frames of an interface of the host, by a packet socket.

    [[network]]
    transport = { kind = "raw", ifname = "uml0" }
    address = "192.168.4.2/30"
    filter = "arp or icmp or tcp port 22"
    [network.host]
    peer = "uml0-host"
    address = "192.168.4.1/30"

`via = "descriptor"`: the bundle's helper `jail` opens the socket before UML starts, attaches the filter and locks it.
UML gets a descriptor of it and nothing else: no capability, no network of the host, and no way to take the filter off.
Who calls `run` needs CAP_NET_RAW for that moment, or starts it with the socket (see docs/network.md).

`via = "kernel"`: UML opens the interface and reads the filter. It needs CAP_NET_RAW in the host's network namespace, by
which whoever breaks out of the guest can read and send on all its interfaces.

There is a filter always: without one in the recipe, it drops what the machine itself has sent and would hear. There is
no vnet header: the host's side must compute checksums and segments itself (`net up` sees to that). The interface is
best one end of a veth pair whose other end, the peer, is the host's or in a bridge.

Source: arch/um/drivers/vector_user.c user_init_raw_fds; uml-facts 2.2, 2.4, 2.5.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from umlbuild.kinds.transports.base import Sockets, TransportModel
from umlbuild.kinds.transports.names import Ifname


class Raw(TransportModel):
    """An interface of the host, by a packet socket."""

    FILTERED: ClassVar[bool] = True
    HEARS_ITSELF: ClassVar[bool] = True
    EGRESS: ClassVar[bool] = True

    kind: Literal["raw"] = "raw"
    ifname: Ifname
    """Name of the host's interface."""
    via: Literal["descriptor", "kernel"] = "descriptor"
    """Who opens the socket: the bundle's helper, or UML itself, which needs CAP_NET_RAW for it."""
    allow_guest_bpf: bool = False
    """With `via = "kernel"`: let guest root replace the filter (`ethtool -f`); where loading fails, there is none
    afterwards. Dangerous."""

    @property
    def name(self) -> str:
        return "fd" if self.via == "descriptor" else "raw"

    @property
    def host_network(self) -> bool:
        return self.via == "kernel"

    @property
    def sockets(self) -> Sockets:
        return "network" if self.via == "kernel" else "none"

    @property
    def capabilities(self) -> tuple[str, ...]:
        return ("net_raw",) if self.via == "kernel" else ()

    @property
    def packet_interface(self) -> str | None:
        return self.ifname if self.via == "descriptor" else None

    @property
    def claims(self) -> tuple[tuple[str, object], ...]:
        return (("ifname", self.ifname),)

    def options(self) -> tuple[tuple[str, str], ...]:
        """Those of `via = "kernel"`; for a descriptor the plan knows its number."""
        if self.via == "descriptor":
            return ()
        return (("ifname", self.ifname), *([("bpfflash", "1")] if self.allow_guest_bpf else []))

    @model_validator(mode="after")
    def _only_the_kernel_takes_filters(self) -> Self:
        if self.allow_guest_bpf and self.via == "descriptor":
            raise ValueError("allow_guest_bpf: only for via = \"kernel\"; the helper's filter is locked")
        return self
