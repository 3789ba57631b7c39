"""`transport = { kind = "gre", src = "192.0.2.1", dst = "192.0.2.2" }`: frames in GRE packets (as Linux's gretap).

Needs CAP_NET_RAW in the host's network namespace: the launcher must be started with it, see docs/network.md. The other
side is another machine, a router, or Linux (`ip link add NAME type gretap`; with IPv6 `ip6gretap`); its keys are this
side's swapped.

There is no filter by sender: whoever can send GRE packets to `src`, with the right key, is in the network. Leave room
for the outer headers: `mtu = 1400` where the outer network has 1500.

Source: arch/um/drivers/vector_transports.c build_gre_transport_data, gre_verify_header; uml-facts 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from umlbuild.kinds.transports.names import Key
from umlbuild.kinds.transports.tunnel import Tunnel, pair


class Gre(Tunnel):
    """A GRE tunnel."""

    kind: Literal["gre"] = "gre"
    rx_key: Key | None = None
    """Key of the packets to receive, at most 0x7fffffff (UML would silently use none); needs `tx_key`."""
    tx_key: Key | None = None
    """Key of the packets to send."""
    sequence: bool = False
    """Send sequence numbers, and take only packets that have one; what they are is not looked at."""
    pin_sequence: bool = False
    """Send 0 as the sequence number, always."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        return ("net_raw",)

    @property
    def claims(self) -> tuple[tuple[str, object], ...]:
        return (("src and rx_key", (self.kind, self.src, self.rx_key)),)

    def mistakes(self) -> Iterator[str]:
        yield from pair("rx_key", "tx_key", (self.rx_key, self.tx_key))
        if self.pin_sequence and not self.sequence:
            yield "pin_sequence needs sequence = true"

    def options(self) -> tuple[tuple[str, str], ...]:
        pairs = [*self.outer()]
        if self.rx_key is not None:
            pairs += [("rx_key", str(self.rx_key)), ("tx_key", str(self.tx_key))]
        pairs.append(("sequence", str(int(self.sequence))))
        if self.sequence:
            pairs.append(("pin_sequence", str(int(self.pin_sequence))))
        return tuple(pairs)
