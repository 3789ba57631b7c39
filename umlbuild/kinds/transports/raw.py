"""`transport = { kind = "raw", ifname = "eth1" }`: the frames of an interface of the host, by a packet socket.

    [[network]]
    transport = { kind = "raw", ifname = "uml0" }
    address = "192.168.4.2/30"
    [network.host]
    peer = "uml0-host"
    address = "192.168.4.1/30"

`via = "descriptor"`: the socket is opened before UML starts, and UML gets a descriptor of it and nothing else: no
capability, no network of the host. One socket sends and receives, so the machine does not hear its own frames.
There is no vnet header: the host's side must compute checksums and segments itself (`net up` sees to that).

`via = "kernel"`: UML opens the interface. It needs CAP_NET_RAW in the host's network namespace, by which whoever breaks
out of the guest can read and send on all its interfaces. The machine hears each of its own frames, too: harmless for a
plain host, but a bridge in the guest is confused by it; a `bpffile` that drops them helps
(`not ether src MAC`, or the packet type "outgoing").

The interface is best one end of a veth pair whose other end, the peer, is the host's or in a bridge.

Source: arch/um/drivers/vector_user.c user_init_raw_fds; uml-facts 2.2, 2.4, 2.5.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from umlbuild.kinds.transports.base import TransportModel
from umlbuild.kinds.transports.names import HostPath, Ifname


class Raw(TransportModel):
    """An interface of the host, by a packet socket."""

    kind: Literal["raw"] = "raw"
    ifname: Ifname
    """Name of the host's interface."""
    via: Literal["descriptor", "kernel"] = "descriptor"
    """Who opens the socket: whoever starts UML, or UML itself, which needs CAP_NET_RAW for it."""
    bpffile: HostPath | None = None
    """With `via = "kernel"`: a file of the host with a classic BPF program (an array of struct sock_filter) for what is
    received. UML would run without a filter if it cannot be used, so the launcher looks at it first."""
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
    def opens_sockets(self) -> bool:
        return self.via == "kernel"

    @property
    def capabilities(self) -> tuple[str, ...]:
        return ("net_raw",) if self.via == "kernel" else ()

    @property
    def filter_file(self) -> str | None:
        return self.bpffile

    @property
    def claims(self) -> tuple[tuple[str, object], ...]:
        return (("ifname", self.ifname),)

    def options(self) -> tuple[tuple[str, str], ...]:
        """Those of `via = "kernel"`; for a descriptor the plan knows its number."""
        if self.via == "descriptor":
            return ()
        pairs = [("ifname", self.ifname)]
        if self.bpffile:
            pairs.append(("bpffile", self.bpffile))
        if self.allow_guest_bpf:
            pairs.append(("bpfflash", "1"))
        return tuple(pairs)

    @model_validator(mode="after")
    def _only_the_kernel_reads_files(self) -> Self:
        given = [name for name in ("bpffile", "allow_guest_bpf") if getattr(self, name)]
        if given and self.via == "descriptor":
            raise ValueError(f"{' and '.join(given)}: only for via = \"kernel\"")
        return self
