"""`[launch]`: how the bundle's launcher starts the machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from umlbuild.kinds.size import Size
from umlbuild.recipe.types import CmdlineWord
from umlbuild.specs.model import Model


class Launch(Model):
    """Defaults of `run`; its options override them."""

    memory: Size = "256M"
    """Memory of the machine: 256M, 1G. It is taken from the host's /dev/shm as the guest touches it."""
    state: Literal["persistent", "ephemeral"] = "persistent"
    """Whether changes to the disks outlive the machine. The bundle itself is never written to."""
    timeout: int | None = Field(default=None, ge=1)
    """Seconds after which the machine is ended (exit status 124); never by default."""
    cmdline: tuple[CmdlineWord, ...] = ()
    """More words for the kernel command line."""
