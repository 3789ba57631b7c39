"""What every transport's model can do."""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.specs.model import Model

Sockets = Literal["none", "unix", "network"]


class TransportModel(Model):
    """One way for frames to leave UML."""

    MINIMUM: ClassVar[tuple[int, int]] = (4, 20)
    """The first kernel that has it."""

    HOST_NETWORK: ClassVar[bool] = False
    """Whether it works in the host's network namespace only."""

    MTU: ClassVar[int] = 1500
    """The largest packet, where the recipe does not say it."""

    SOCKETS: ClassVar[Sockets] = "network"
    """Which sockets UML opens and connects for it; the sandbox's filter lets no others through."""

    FILTERED: ClassVar[bool] = False
    """Whether UML receives whole frames on a socket, to which it can attach a filter (`bpffile=`). Not so of a tunnel's
    socket: a filter there sees the tunnel's packet."""

    HEARS_ITSELF: ClassVar[bool] = False
    """Whether it receives what it sends, unless a filter drops that."""

    EGRESS: ClassVar[bool] = False
    """Whether what the guest sends comes in at an interface of the host, where it can be filtered."""

    @property
    def egress_device(self) -> str | None:
        """That interface, if the transport knows it."""
        return None

    @property
    def filtered_fd(self) -> int | None:
        """The inherited descriptor that must be a socket for a filter to work."""
        return None

    @property
    def host_paths(self) -> tuple[str, ...]:
        """Devices and sockets of the host that UML opens for it."""
        return ()

    def options(self) -> tuple[tuple[str, str], ...]:
        """Its own (option, value) pairs of `vecN:transport=…,`, in order."""
        raise NotImplementedError
