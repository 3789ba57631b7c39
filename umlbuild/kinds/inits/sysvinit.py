"""`init = "sysvinit"`: Debian's classic init with its boot scripts, and one getty on the launcher's line.

    [rootfs]
    init = "sysvinit"

Source: inittab(5); /usr/share/sysvinit/inittab of Debian's sysvinit-core for the run levels.
"""

from __future__ import annotations

from typing import Literal

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.inits import guest as shared
from umlbuild.kinds.inits.base import Guest
from umlbuild.specs.model import Model
from umlbuild.specs.rootfs import Entry

_INITTAB = """\
id:2:initdefault:
si::sysinit:/etc/init.d/rcS
~~:S:wait:/sbin/sulogin --force
l0:0:wait:/etc/init.d/rc 0
l1:1:wait:/etc/init.d/rc 1
l2:2:wait:/etc/init.d/rc 2
l3:3:wait:/etc/init.d/rc 3
l4:4:wait:/etc/init.d/rc 4
l5:5:wait:/etc/init.d/rc 5
l6:6:wait:/etc/init.d/rc 6
ca:12345:ctrlaltdel:/sbin/shutdown -t1 -a -h now
pf::powerwait:/etc/init.d/powerfail start
ua:2345:once:{lib}/agent
1:2345:respawn:/sbin/agetty {options}--noclear tty1 linux
"""


class Sysvinit(Model):
    """sysvinit as process 1."""

    kind: Literal["sysvinit"] = "sysvinit"

    @property
    def program(self) -> str:
        return "/sbin/init"

    def contribute(self, guest: Guest) -> Contribution:
        options = f"--autologin {guest.autologin} " if guest.autologin else ""
        entries = [
            shared.agent(),
            Entry(path="/etc/inittab", content=_INITTAB.format(lib=shared.LIB, options=options)),
        ]
        entries += shared.module_entries(guest)
        return Contribution(
            kconfig=symbols.SYSVINIT,
            optional_kconfig=symbols.SYSVINIT_OPTIONAL,
            packages=("sysvinit-core", "procps", *shared.packages(guest)),
            entries=tuple(entries),
        )
