"""What the host has for the machine's interfaces; rendered into the bundle's `net` by `umlbuild.plan.hostnet`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from umlbuild.specs.launch import Name
from umlbuild.specs.model import Model

Interface = Annotated[str, Field(pattern=r"^[!-~]{1,15}$")]


class Link(Model):
    """One interface of the machine, as the host sees it."""

    kind: Literal["tap", "veth", "gretap", "ip6gretap", "l2tp", "any"]
    """What it is; any: an interface that is there already."""
    ifname: Interface
    """What UML opens; of tunnels, the host's own end."""
    peer: Interface | None = None
    """veth: the host's end."""
    bridge: Interface | None = None
    address: str | None = None
    """With its prefix length."""
    address6: str | None = None
    mtu: int = 1500
    create: bool = True
    user: str | None = None
    """Whose a tap is; None: whoever the script finds."""
    computes: bool = False
    """Whether the host's end must compute checksums and segments itself: the machine gets no vnet header."""
    tunnel: tuple[str, ...] = ()
    """gretap, ip6gretap: arguments of `ip link add`; l2tp: of `ip l2tp add tunnel`."""
    session: tuple[str, ...] = ()
    """l2tp: arguments of `ip l2tp add session`."""


class HostNetwork(Model):
    """All that distinguishes one bundle's `net` from another's."""

    name: Name
    links: tuple[Link, ...]
    root: bool = False
    """Whether UML must be root's (it needs a capability), and so must its taps."""
