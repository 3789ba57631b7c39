"""What every transport's model can do, and what its host must have for it."""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.specs.model import Model

Sockets = Literal["none", "unix", "network"]

FIRST_DESCRIPTOR = 200
"""The packet socket of vecN has this number plus N in UML: above what the launcher and its callers use."""


class TransportModel(Model):
    """One way for frames to leave UML."""

    MINIMUM: ClassVar[tuple[int, int]] = (4, 20)
    """The first kernel that has it."""

    HOST_NETWORK: ClassVar[bool] = False
    """Whether it works in the host's network namespace only."""

    MTU: ClassVar[int] = 1500
    """The largest packet, where the recipe does not say it."""

    SOCKETS: ClassVar[Sockets] = "network"
    """Which sockets UML opens and connects for it, at most."""

    FILTERED: ClassVar[bool] = False
    """Whether UML receives whole frames on a socket, to which a filter can be attached. Not so of a tunnel's socket: a
    filter there sees the tunnel's packet."""

    HEARS_ITSELF: ClassVar[bool] = False
    """Whether it receives what it sends, unless a filter drops that."""

    EGRESS: ClassVar[bool] = False
    """Whether what the guest sends comes in at an interface of the host, where it can be filtered."""

    PANICS_SMP: ClassVar[bool] = False
    """Whether bringing the interface up panics a kernel that is built for several CPUs.

    Source: vector_kern.c vector_reset_stats takes the locks of queues that a transport without vectors does not have;
    without SMP a lock is no code."""

    RUNS_PROGRAM: ClassVar[str] = ""
    """A program of the host that UML starts for it: there is none in a sandbox."""

    kind: str
    """The word that recipes have for it."""

    @property
    def name(self) -> str:
        """UML's word for it."""
        return self.kind

    @property
    def host_network(self) -> bool:
        """Whether UML must be in the host's network namespace."""
        return self.HOST_NETWORK

    @property
    def sockets(self) -> Sockets:
        """Which sockets UML opens and connects for it; the sandbox's filter lets no others through."""
        return self.SOCKETS

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What UML needs over the host's network namespace, e.g. ("net_raw",)."""
        return ()

    @property
    def packet_interface(self) -> str | None:
        """The host's interface on which a packet socket is opened for it before UML starts."""
        return None

    @property
    def egress_device(self) -> str | None:
        """The host's interface where the guest's frames come in, if the transport knows it."""
        return None

    @property
    def host_paths(self) -> tuple[str, ...]:
        """Devices and sockets of the host that UML opens for it."""
        return ()

    @property
    def descriptor(self) -> int | None:
        """The number of a descriptor that UML must be started with."""
        return None

    @property
    def claims(self) -> tuple[tuple[str, object], ...]:
        """(what, value) of which two interfaces of one machine cannot have the same."""
        return ()

    def options(self) -> tuple[tuple[str, str], ...]:
        """Its own (option, value) pairs of `vecN:transport=…,`, in order."""
        raise NotImplementedError
