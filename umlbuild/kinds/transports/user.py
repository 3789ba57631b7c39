"""`transport = "user"`: rootless networking. DHCP, DNS, the outside, and port forwards, with no privilege at all.

    [[network]]
    transport = { kind = "user", forward = ["2222->22", "127.0.0.1:8080->80", "udp:127.0.0.1:5353->53"] }

The guest is 10.0.2.15 behind a translation of addresses that the program `slirp4netns` does with ordinary sockets of
the user who starts the machine: gateway 10.0.2.2, name server 10.0.2.3 (which asks the host's). The launcher starts and
ends it, in a sandbox of its own. What the guest can reach is what that user could reach: the outside and the host's
own addresses, but not the host's 127.0.0.1. See docs/network-user.md.

The host that runs the machine needs the packages `slirp4netns` and `perl-base`.

Source: slirp4netns(1) of 1.2.0; arch/um/drivers/vector_user.c user_init_unix_fds.
"""

from __future__ import annotations

import ipaddress
from itertools import combinations
from typing import ClassVar, Literal

from pydantic import field_validator

from umlbuild.kinds.transports.base import Sockets, TransportModel
from umlbuild.kinds.transports.forward import Forward, clash_of, parts_of

NETWORK = ipaddress.IPv4Network("10.0.2.0/24")
GUEST = "10.0.2.15"
"""Whom DHCP answers first. Source: slirp4netns main.c DEFAULT_VDHCPSTART_OFFSET."""
TAKEN = ("10.0.2.2", "10.0.2.3")
"""Gateway and name server."""
MTU_LIMIT = 65_521
"""Source: slirp4netns(1), --mtu."""


class User(TransportModel):
    """slirp4netns, started with the machine."""

    SOCKETS: ClassVar[Sockets] = "unix"
    MTU: ClassVar[int] = 9000
    """TCP ends in slirp4netns, so no packet of this size leaves the host; measured, it carries three times as much as
    1500 does. 65520 stalls."""

    kind: Literal["user"] = "user"
    forward: tuple[Forward, ...] = ()
    """Ports of the host that lead into the guest: "[udp:][ADDRESS:]PORT->GUEST PORT". Without an address only the
    host itself reaches them (127.0.0.1); "0.0.0.0:8080->80" opens one to the whole network. Ports of the host below
    1024 need a privilege on most hosts: the start is refused there."""
    host_loopback: bool = False
    """Let the guest reach what listens on the host's 127.0.0.1 (as 10.0.2.2)."""
    ipv6: bool = False
    """IPv6, too: fd00::/64 by router advertisements (`address6 = "auto"`), for hosts that have IPv6."""

    @field_validator("forward")
    @classmethod
    def _distinct(cls, forwards: tuple[str, ...]) -> tuple[str, ...]:
        for one, other in combinations(forwards, 2):
            if clash_of(one, other):
                raise ValueError(f"{one} and {other} want the same port of the host")
        return forwards

    def leads(self, address: str) -> tuple[str, ...]:
        """The forwards as the launcher wants them; `address` is the interface's, as in the recipe."""
        guest = address.partition("/")[0] if "/" in address else GUEST
        rows = (parts_of(text) for text in self.forward)
        return tuple(f"{protocol}:{host}:{port}:{guest}:{inner}" for protocol, host, port, inner in rows)
