"""`init = "systemd"`: Debian's own; services, journal, everything a Debian user expects.

A login prompt is on tty1, which is the launcher's terminal; the kernel's and systemd's messages go to
tty0, the launcher's standard error. No other line has a getty.

    [rootfs]
    init = "systemd"

Source: uml-facts 6.3 (getty@tty1 starts by itself, tty0 never gets one); systemd-getty-generator(8).
"""

from __future__ import annotations

from typing import Literal

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.inits import guest as shared
from umlbuild.kinds.inits.base import Guest
from umlbuild.specs.model import Model
from umlbuild.specs.rootfs import Entry

_AGENT_UNIT = f"""\
[Unit]
Description=Commands from the host over a serial line
ConditionKernelCommandLine=umlbuild.agent

[Service]
ExecStart={shared.LIB}/agent
StandardInput=null
StandardOutput=journal
Restart=on-failure
RestartSec=1
# Commands of the host may start daemons; they shall outlive a restart of the line's server.
KillMode=process

[Install]
WantedBy=multi-user.target
"""

_AUTOLOGIN = """\
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin {user} --noclear - $TERM
"""

# What boots a PC and finds nothing in a UML machine. In safe mode each program that is started, and each event of udev,
# costs 20 to 100 ms; nothing here is taken away, it only waits until there is something for it to do.
# Source: systemd-analyze blame of recipes/router.toml, systemd 252; udevadm(8), systemd.unit(5).
_LEAN: tuple[tuple[str, str], ...] = (
    # UML has 64 serial lines; ten of them are announced to udev.
    (
        "systemd-udev-trigger.service",
        """\
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=subsystems --action=add
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-nomatch=tty
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=tty --sysname-match=tty --sysname-match=tty? \
--sysname-match=tty?? --sysname-match=[!t]*
""",
    ),
    # configfs, dm_mod, efi_pstore, fuse and loop are asked for by everybody; a kernel may have them built in, or not.
    (
        "modprobe@.service",
        """\
[Unit]
ConditionPathExistsGlob=|/lib/modules/%v/kernel/*/*/%i.ko*
ConditionPathExistsGlob=|/lib/modules/%v/kernel/*/*/*/%i.ko*
ConditionPathExistsGlob=|/lib/modules/%v/kernel/drivers/md/dm-mod.ko*
""",
    ),
    ("e2scrub_reap.service", "[Unit]\nConditionPathExists=/usr/sbin/lvm\n"),
    # tty2 to tty6 lead nowhere unless somebody connects them.
    ("getty-static.service", "[Unit]\nConditionKernelCommandLine=con2\n"),
)
_NO_GENERATORS = ("systemd-gpt-auto-generator", "systemd-hibernate-resume-generator")
"""UML has no firmware that names a root partition, and cannot be suspended to its disk."""


class Systemd(Model):
    """systemd as process 1."""

    kind: Literal["systemd"] = "systemd"

    @property
    def program(self) -> str:
        return "/sbin/init"

    def contribute(self, guest: Guest) -> Contribution:
        entries = [
            shared.agent(),
            Entry(path="/etc/systemd/system/umlbuild-agent.service", content=_AGENT_UNIT),
            # Source: machine-id(5): empty gives the guest its own at first boot, without the presets of a
            # "first boot", which would enable services that nobody asked for.
            Entry(path="/etc/machine-id", content="", mode=0o444),
        ]
        entries += shared.module_entries(guest)
        entries += [
            Entry(path=f"/etc/systemd/system/{unit}.d/10-umlbuild.conf", content=text) for unit, text in _LEAN
        ]
        entries += [
            Entry(path=f"/etc/systemd/system-generators/{name}", type="symlink", target="/dev/null")
            for name in _NO_GENERATORS
        ]
        if guest.autologin:
            path = "/etc/systemd/system/getty@tty1.service.d/autologin.conf"
            entries.append(Entry(path=path, content=_AUTOLOGIN.format(user=guest.autologin)))
        return Contribution(
            kconfig=symbols.SYSTEMD,
            optional_kconfig=symbols.SYSTEMD_OPTIONAL,
            # kmod-static-nodes.service fails where there are modules, and nothing that can read their list.
            packages=("systemd-sysv", "udev", *(["kmod"] * guest.has_modules), *shared.packages(guest)),
            entries=tuple(entries),
            enable=("umlbuild-agent.service", *_network_services(guest)),
        )


def _network_services(guest: Guest) -> tuple[str, ...]:
    """systemd's own network, and who writes resolv.conf when DHCP tells the servers."""
    if guest.manager != "networkd":
        return ()
    return ("systemd-networkd.service", *(["systemd-resolved.service"] * guest.has_dhcp))
