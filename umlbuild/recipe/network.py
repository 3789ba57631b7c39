"""`[[network]]`: the interfaces vec0, vec1, …, what their guest side is set to, and what they need of the host."""

from __future__ import annotations

from pydantic import Field

from umlbuild.kinds.transports import Transport
from umlbuild.kinds.transports.names import Ifname
from umlbuild.recipe.filter import Egress, Filter
from umlbuild.recipe.types import Account, Address, Address4, Address6, HostAddress, MacAddress, Prefix
from umlbuild.specs.model import Model


class Route(Model):
    """A route of the guest's besides the default one."""

    to: Prefix
    """The network that it leads to, like "10.0.0.0/8"."""
    via: Address
    """The next router, in one of the interface's networks."""


class Host(Model):
    """The host's side of an interface: what `dist/NAME/net up` makes, and `run` looks for."""

    address: HostAddress | None = None
    """The host's IPv4 address and prefix length there: on the bridge if there is one, else on the peer, else on the
    interface itself."""
    address6: HostAddress | None = None
    """The host's IPv6 address and prefix length."""
    bridge: Ifname | None = None
    """The bridge that the host's end is put into; it is made if there is none of this name."""
    peer: Ifname | None = None
    """raw: the other end of the veth pair, which is the host's. gre, l2tpv3: the host's own tunnel interface, if the
    host is the other side."""
    create: bool = True
    """Whether `net up` makes the interface, and `net down` removes it; else it must be there."""
    user: Account | None = None
    """Whose the tap is; by default whoever calls `sudo dist/NAME/net up`."""


class Network(Model):
    """One interface; the first is vec0, the second vec1, and so on."""

    transport: Transport
    """How frames leave UML, with that transport's own fields; docs/network.md compares them."""
    address: Address4 = "dhcp"
    """IPv4: "dhcp", "none", or address and prefix length."""
    gateway: Address | None = None
    """IPv4 default route."""
    address6: Address6 = "none"
    """IPv6: "auto" (router advertisements), "none", or address and prefix length."""
    gateway6: Address | None = None
    """IPv6 default route."""
    routes: tuple[Route, ...] = ()
    """More routes, of both families."""
    dns: tuple[Address, ...] = ()
    """Name servers, for /etc/resolv.conf; a DHCP client writes those that it is told."""
    mac: MacAddress | None = None
    """MAC address; a stable one derived from the recipe's name and the unit by default."""
    mtu: int | None = Field(default=None, ge=576, le=65_534)
    """Largest packet, bytes; 1500 by default, 9000 with transport `user`."""
    depth: int = Field(default=128, ge=1, le=1024)
    """Frames that are handled in one go."""
    headroom: int = Field(default=2, ge=0, le=1024)
    """Bytes that are kept free before each received frame; more for a guest that puts them into tunnels."""
    gro: bool = True
    """Receive merged segments: without it TCP between machines crawls (2 Mbit/s were seen)."""
    vec: bool = True
    """Many packets in one system call. Off is for descriptors that are no sockets; it panics kernels with SMP."""
    filter: Filter | None = None
    """Which frames the guest receives: an expression like "arp or tcp port 22", or `{ file = "rules.pcap" }`."""
    egress: Egress | None = None
    """Which frames the guest may send, where they come in at an interface of the host."""
    host: Host | None = None
    """The host's side, for tap, hybrid, raw, gre and l2tpv3. A tap's is there even without this table."""

    @property
    def largest(self) -> int:
        """The MTU. Source: uml-facts 2.2: UML silently takes 1500 for anything else than 576..65534."""
        return self.transport.MTU if self.mtu is None else self.mtu

    @property
    def egress_device(self) -> str | None:
        """The host's interface where the guest's frames come in, if one is known."""
        said = self.egress.device if self.egress else None
        return said or self.transport.egress_device or (self.host.peer if self.host else None)
