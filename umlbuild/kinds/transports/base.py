"""What every transport's model can do."""

from __future__ import annotations

from typing import ClassVar

from umlbuild.specs.model import Model


class TransportModel(Model):
    """One way for frames to leave UML."""

    MINIMUM: ClassVar[tuple[int, int]] = (4, 20)
    """The first kernel that has it."""

    HOST_NETWORK: ClassVar[bool] = False
    """Whether it works in the host's network namespace only."""

    @property
    def host_paths(self) -> tuple[str, ...]:
        """Devices and sockets of the host that UML opens for it."""
        return ()

    def options(self) -> tuple[tuple[str, str], ...]:
        """Its own (option, value) pairs of `vecN:transport=…,`, in order."""
        raise NotImplementedError
