"""`init = { kind = "script", command = [...] }`: the machine runs one program and powers off.

The launcher's exit status is the program's own (0..123; a higher one is reported as 123).

    [rootfs]
    init = { kind = "script", command = ["/usr/bin/make", "-C", "/src", "test"] }

With `bootstrap = "extract"` the root has busybox for a shell.
"""

from __future__ import annotations

import shlex
from typing import Literal

from pydantic import Field

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.inits import guest as shared
from umlbuild.kinds.inits.base import Guest
from umlbuild.specs.model import Model
from umlbuild.specs.rootfs import Entry


class Script(Model):
    """One program instead of an init system."""

    kind: Literal["script"] = "script"
    command: tuple[str, ...] = Field(min_length=1)
    """The program and its arguments, run as root on the launcher's terminal."""
    directory: str = Field(default="/", pattern="^/")
    """Where it is run."""

    @property
    def program(self) -> str:
        return f"{shared.LIB}/script-init"

    def contribute(self, guest: Guest) -> Contribution:
        command = f"#!/bin/sh\ncd {shlex.quote(self.directory)} || exit 123\nexec {shlex.join(self.command)}\n"
        entries = [
            shared.agent(),
            shared.script("early.sh"),
            shared.script("script-init.sh"),
            Entry(path=f"{shared.LIB}/command", content=command, mode=0o755),
        ]
        entries += shared.module_entries(guest)
        if guest.is_bare:
            entries += shared.applets(shared.APPLETS.split())
        return Contribution(
            kconfig=symbols.SCRIPT,
            optional_kconfig=symbols.SCRIPT_OPTIONAL,
            packages=(*(["busybox-static"] if guest.is_bare else []), *shared.packages(guest)),
            entries=tuple(entries),
        )
