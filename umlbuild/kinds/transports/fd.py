"""`transport = { kind = "fd", fd = 5 }`: a descriptor that the launcher's caller has opened.

For example one end of a socketpair(AF_UNIX, SOCK_DGRAM) whose other end another machine holds.

Source: arch/um/drivers/vector_user.c user_init_fd_fds; uml-facts 2.5.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from umlbuild.kinds.transports.base import Sockets, TransportModel


class Fd(TransportModel):
    """An inherited descriptor."""

    FILTERED: ClassVar[bool] = True
    SOCKETS: ClassVar[Sockets] = "none"

    kind: Literal["fd"] = "fd"
    fd: int = Field(ge=3, le=1023)
    """Its number in the process that calls `run`."""

    def options(self) -> tuple[tuple[str, str], ...]:
        return (("fd", str(self.fd)),)

    @property
    def filtered_fd(self) -> int | None:
        return self.fd
