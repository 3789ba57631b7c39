"""`[launch]`: how the bundle's launcher starts the machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from umlbuild.kinds.sandboxes import Sandbox
from umlbuild.kinds.sandboxes.bwrap import Bwrap
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
    cpus: int = Field(default=1, ge=1, le=64)
    """CPUs of the machine. More than one needs `trust_userspace`, and a kernel from 7.0 on, built from source."""
    trust_userspace: bool = False
    """Run the guest's programs by UML's `seccomp` mode instead of ptrace: about twice as fast, but any program in the
    guest can then read and write all of the guest's memory, kernel included. The sandbox still holds."""
    pin: tuple[int, ...] = ()
    """CPUs of the host that the machine may run on (taskset); all by default."""
    numa: int | None = Field(default=None, ge=0, le=1023)
    """The host's NUMA node that its memory comes from (numactl)."""
    processes: int = Field(default=1024, ge=64, le=32_768)
    """How many processes and threads the machine may have on its host; each process of the guest is one there, and
    UML itself has a few. In the guest, fork(2) then fails. Root's own machines (`run --allow-root`) have no limit."""
    sandbox: Sandbox = Bwrap()
    """What confines the machine on its host; see the sandboxes."""
    log_limit: Size = "64M"
    """Where the file of `run --log` ends: a guest that prints for ever does not fill the host's disk."""
