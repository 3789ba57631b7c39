"""`init = "busybox"`: one static binary as process 1; boots in a fraction of a second.

On a Debian root it replaces systemd; with `bootstrap = "extract"` the root is busybox and nothing else.

    [rootfs]
    init = "busybox"

Source: busybox examples/inittab for the format; `busybox --list` of Debian's busybox-static for applets.
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
::sysinit:{lib}/busybox-boot
tty1::respawn:/bin/busybox getty {options}-L 0 tty1 linux
::once:{lib}/agent
::ctrlaltdel:/bin/busybox poweroff
::shutdown:/bin/busybox umount -a -r
"""

# busybox login(1) asks for no password with -f.
_AUTOLOGIN = "#!/bin/sh\nexec /bin/busybox login -f {user}\n"


ENDINGS = ("halt", "poweroff", "reboot")
"""What every root gets: Debian has these from systemd-sysv or sysvinit-core, whose place this init takes."""


class Busybox(Model):
    """busybox init as process 1."""

    kind: Literal["busybox"] = "busybox"

    @property
    def program(self) -> str:
        return f"{shared.LIB}/init"

    def contribute(self, guest: Guest) -> Contribution:
        options = f"-n -l {shared.LIB}/autologin " if guest.autologin else ""
        entries = [
            shared.agent(),
            shared.script("early.sh"),
            shared.script("busybox-boot.sh"),
            # busybox takes its applet's name from argv[0], so process 1 must be called "init".
            Entry(path=f"{shared.LIB}/init", type="symlink", target="/bin/busybox"),
            Entry(path="/etc/inittab", content=_INITTAB.format(lib=shared.LIB, options=options)),
        ]
        entries += shared.applets(shared.APPLETS.split() if guest.is_bare else ENDINGS)
        if guest.autologin:
            text = _AUTOLOGIN.format(user=guest.autologin)
            entries.append(Entry(path=f"{shared.LIB}/autologin", content=text, mode=0o755))
        entries += shared.module_entries(guest)
        return Contribution(
            kconfig=symbols.BUSYBOX,
            optional_kconfig=symbols.BUSYBOX_OPTIONAL,
            packages=("busybox-static", *shared.packages(guest)),
            entries=tuple(entries),
        )
