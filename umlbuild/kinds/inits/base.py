"""What an init is told about the machine, and what every init's model can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from umlbuild.kinds.contribution import Contribution

Manager = Literal["networkd", "ifupdown", "busybox"]


@dataclass(frozen=True)
class Guest:
    """The parts of a recipe that an init wires up."""

    modules: tuple[str, ...] = ()
    """Kernel modules to load at boot, in order."""
    lock_modules: bool = True
    """Whether module loading goes off after that."""
    autologin: str | None = None
    """The user who is logged in on the launcher's terminal without a password; None: a login prompt."""
    manager: Manager | None = None
    """Who brings the interfaces up; None: there are none."""
    has_dhcp: bool = False
    """Whether one of them asks DHCP for its address."""
    has_resolved_package: bool = True
    """Whether systemd-resolved is a package of its own (it is from bookworm on)."""
    has_modules: bool = False
    """Whether the kernel comes with any."""
    is_bare: bool = False
    """Whether the root has only the packages that are named (bootstrap = "extract"): not even a shell."""


class Init(Protocol):
    """One init system."""

    @property
    def kind(self) -> str:
        """Its name in recipes."""
        ...

    @property
    def program(self) -> str:
        """The path that the kernel (or the overlay script) executes as process 1."""
        ...

    def contribute(self, guest: Guest) -> Contribution:
        """Packages, Kconfig symbols, files and services that it needs."""
        ...
