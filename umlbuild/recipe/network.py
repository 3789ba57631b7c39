"""`[[network]]`: the interfaces vec0, vec1, … and what their guest side is set to."""

from __future__ import annotations

from pydantic import Field

from umlbuild.kinds.transports import Transport
from umlbuild.recipe.filter import Egress, Filter
from umlbuild.recipe.types import Address, Address4, Address6, MacAddress
from umlbuild.specs.model import Model


class Network(Model):
    """One interface; the first is vec0, the second vec1, and so on."""

    transport: Transport
    """How frames leave UML: `user` (rootless, no set-up), `tap`, `fd` or `bess`, with that transport's own fields."""
    address: Address4 = "dhcp"
    """IPv4: "dhcp", "none", or address and prefix length."""
    gateway: Address | None = None
    """IPv4 default route."""
    address6: Address6 = "none"
    """IPv6: "auto" (router advertisements), "none", or address and prefix length."""
    gateway6: Address | None = None
    """IPv6 default route."""
    dns: tuple[Address, ...] = ()
    """Name servers, for /etc/resolv.conf."""
    mac: MacAddress | None = None
    """MAC address; a stable one derived from the recipe's name and the unit by default."""
    mtu: int | None = Field(default=None, ge=576, le=65_534)
    """Largest packet, bytes; 1500 by default, 9000 with transport `user`."""
    depth: int = Field(default=128, ge=1, le=1024)
    """Frames that are handled in one go."""
    gro: bool = True
    """Receive merged segments: without it TCP between machines crawls (2 Mbit/s were seen)."""
    filter: Filter | None = None
    """Which frames the guest receives: an expression like "arp or tcp port 22", or `{ file = "rules.pcap" }`."""
    egress: Egress | None = None
    """Which frames the guest may send, where they come in at an interface of the host."""

    @property
    def largest(self) -> int:
        """The MTU. Source: uml-facts 2.2: UML silently takes 1500 for anything else than 576..65534."""
        return self.transport.MTU if self.mtu is None else self.mtu
