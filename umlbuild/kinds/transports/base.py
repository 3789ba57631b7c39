"""What every transport's model can do, and what its host must have for it."""

from __future__ import annotations

from typing import ClassVar

from umlbuild.specs.model import Model

FIRST_DESCRIPTOR = 200
"""The packet socket of vecN has this number plus N in UML: above what the launcher and its callers use."""


class TransportModel(Model):
    """One way for frames to leave UML."""

    MINIMUM: ClassVar[tuple[int, int]] = (4, 20)
    """The first kernel that has it."""

    HOST_NETWORK: ClassVar[bool] = False
    """Whether it works in the host's network namespace only."""

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
    def opens_sockets(self) -> bool:
        """Whether UML itself opens a socket or device."""
        return True

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What UML needs over the host's network namespace, e.g. ("net_raw",)."""
        return ()

    @property
    def host_paths(self) -> tuple[str, ...]:
        """Devices and sockets of the host that UML opens for it."""
        return ()

    @property
    def filter_file(self) -> str | None:
        """A file of the host with a classic BPF program that UML reads for it."""
        return None

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
