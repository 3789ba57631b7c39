"""`transport = { kind = "fd", fd = 20 }`: a descriptor that the launcher's caller has opened.

For example one end of a socketpair(AF_UNIX, SOCK_SEQPACKET or SOCK_DGRAM) whose other end another machine holds: a
cable between two machines that needs no privilege and no network of the host. A packet socket works, too; a tap (opened
without IFF_VNET_HDR) with `vec = false`. `Machine.start(bundle, descriptors=[20])` hands descriptors on.

`ip link set vec0 down` closes the descriptor for good: the interface cannot come up again.

Source: arch/um/drivers/vector_user.c user_init_fd_fds; uml-facts 2.5.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from umlbuild.kinds.transports.base import FIRST_DESCRIPTOR, Sockets, TransportModel


class Fd(TransportModel):
    """An inherited descriptor."""

    FILTERED: ClassVar[bool] = True
    SOCKETS: ClassVar[Sockets] = "none"

    kind: Literal["fd"] = "fd"
    fd: int = Field(ge=20, lt=FIRST_DESCRIPTOR)
    """Its number in the process that calls `run`; lower ones are the launcher's, higher ones are those of `raw`."""

    @property
    def descriptor(self) -> int | None:
        return self.fd

    @property
    def claims(self) -> tuple[tuple[str, object], ...]:
        return (("fd", self.fd),)

    def options(self) -> tuple[tuple[str, str], ...]:
        return (("fd", str(self.fd)),)
