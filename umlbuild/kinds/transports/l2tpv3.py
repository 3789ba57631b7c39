"""`transport = { kind = "l2tpv3", ... }`: frames in L2TPv3 data packets, over UDP or directly over IP.

    transport = { kind = "l2tpv3", udp = true, src = "127.0.0.1", srcport = 15001,
                  dst = "127.0.0.1", dstport = 15002, rx_session = 7, tx_session = 7 }

Over UDP it needs no privilege, only the host's network namespace: the simplest way between two machines, also on two
hosts. Over IP it needs CAP_NET_RAW there: the launcher must be started with it, see docs/network.md. The other side is
another machine, a router, or Linux (`ip l2tp`); the other side's sessions and cookies are this side's swapped.

There is no filter by sender and no encryption: a secret cookie of 64 bits keeps out who cannot read the packets; who
can is not kept out. Leave room for the outer headers: `mtu = 1400` where the outer network has 1500.

Source: arch/um/drivers/vector_transports.c build_l2tpv3_transport_data; RFC 3931 4.1; uml-facts 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from umlbuild.kinds.transports.names import Cookie, Port, Session
from umlbuild.kinds.transports.tunnel import Tunnel, pair


class L2tpv3(Tunnel):
    """An L2TPv3 tunnel with one session."""

    kind: Literal["l2tpv3"] = "l2tpv3"
    udp: bool = False
    """In UDP packets instead of IP packets of protocol 115."""
    srcport: Port | None = None
    """With `udp`: this side's port, 1024 or higher."""
    dstport: Port | None = None
    """With `udp`: the other side's port."""
    rx_session: Session
    """Session of the packets to receive, 1 to 0x7fffffff (UML panics on larger ones)."""
    tx_session: Session
    """Session of the packets to send."""
    rx_cookie: Cookie | None = None
    """Cookie of the packets to receive; needs `tx_cookie`."""
    tx_cookie: Cookie | None = None
    """Cookie of the packets to send."""
    cookie64: bool = False
    """Cookies of 64 bits instead of 32."""
    counter: bool = False
    """Send a counter, and expect room for one in what comes; its value is not looked at."""
    pin_counter: bool = False
    """Send 0 as the counter, always."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        return () if self.udp else ("net_raw",)

    @property
    def claims(self) -> tuple[tuple[str, object], ...]:
        if self.udp:
            return (("src and srcport", (self.kind, self.src, self.srcport)),)
        return (("src and rx_session", (self.kind, self.src, self.rx_session)),)

    def mistakes(self) -> Iterator[str]:
        ports = (self.srcport, self.dstport)
        if self.udp and None in ports:
            yield "udp needs srcport and dstport"
        if not self.udp and ports != (None, None):
            yield "srcport and dstport are for udp = true"
        cookies = (self.rx_cookie, self.tx_cookie)
        yield from pair("rx_cookie", "tx_cookie", cookies)
        if self.cookie64 and cookies == (None, None):
            yield "cookie64 needs rx_cookie and tx_cookie"
        for name, cookie in zip(("rx_cookie", "tx_cookie"), cookies, strict=True):
            if cookie is not None and cookie >= 1 << 32 and not self.cookie64:
                yield f"{name} is larger than 0xffffffff, of which UML would use a part: it needs cookie64 = true"
        if self.pin_counter and not self.counter:
            yield "pin_counter needs counter = true"

    def options(self) -> tuple[tuple[str, str], ...]:
        pairs = [*self.outer(), ("udp", str(int(self.udp)))]
        if self.udp:
            pairs += [("srcport", str(self.srcport)), ("dstport", str(self.dstport))]
        pairs += [("rx_session", str(self.rx_session)), ("tx_session", str(self.tx_session))]
        if self.rx_cookie is not None:
            pairs += [("rx_cookie", str(self.rx_cookie)), ("tx_cookie", str(self.tx_cookie))]
            pairs.append(("cookie64", str(int(self.cookie64))))
        pairs.append(("counter", str(int(self.counter))))
        if self.counter:
            pairs.append(("pin_counter", str(int(self.pin_counter))))
        return tuple(pairs)
