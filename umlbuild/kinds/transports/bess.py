"""`transport = { kind = "bess", dst = "/run/user/1000/net.sock" }`: a SOCK_SEQPACKET unix socket.

Needs no privilege at all, and no network of the host. `umlbuild hub SOCKET --uplink` answers there: a network of
several machines with DHCP, DNS and access to the outside (for one machine alone, transport "user" is simpler). Any
program that speaks Ethernet frames over such a socket will do. UML connects when the interface comes up, and never
listens: the other side must be there before. It must stay longer than the machine, too: at the socket's end UML's
kernel is busy for ever.

Source: arch/um/drivers/vector_user.c user_init_unix_fds; uml-facts 2.2; experiments F.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.kinds.transports.base import Sockets, TransportModel
from umlbuild.kinds.transports.names import SocketPath


class Bess(TransportModel):
    """A unix socket that somebody listens on."""

    FILTERED: ClassVar[bool] = True
    SOCKETS: ClassVar[Sockets] = "unix"

    kind: Literal["bess"] = "bess"
    dst: SocketPath
    """Where the other side listens; at most 107 bytes."""
    src: SocketPath | None = None
    """The path that this side binds, if the other wants to know it; a sandbox has no place for it."""

    @property
    def host_paths(self) -> tuple[str, ...]:
        return (self.dst,)

    @property
    def claims(self) -> tuple[tuple[str, object], ...]:
        return (("src", self.src),) if self.src else ()

    def options(self) -> tuple[tuple[str, str], ...]:
        pairs = [("dst", self.dst)]
        if self.src:
            pairs.append(("src", self.src))
        return tuple(pairs)
