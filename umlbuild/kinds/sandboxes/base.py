"""What the plan wants to know of every sandbox."""

from __future__ import annotations

from typing import ClassVar

from umlbuild.specs.model import Model


class SandboxModel(Model):
    """One way to confine a machine on its host."""

    CONFINES: ClassVar[bool] = True
    """Whether it confines at all: shares need that."""
    SOCKETS: ClassVar[bool] = True
    """Whether UML may open sockets: most transports do, and mconsole."""
    OWN_ROOT: ClassVar[bool] = True
    """Whether UML sees a tree of files of its own, with the shares mounted in it."""
    HELPER: ClassVar[bool] = False
    """Whether the bundle needs the compiled helper for it."""
    PROGRAMS: ClassVar[tuple[str, ...]] = ()
    """What the host that runs the machine must have for it, besides the launcher's own needs."""
