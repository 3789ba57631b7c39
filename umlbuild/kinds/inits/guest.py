"""The guest files that several inits share, as entries for the configure stage.

The scripts themselves stand in `umlbuild/launcher/guest/`; here they only become entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from umlbuild.kinds.inits.base import Guest
from umlbuild.specs.rootfs import Entry

LIB = "/usr/lib/umlbuild"
"""Where everything of ours lies in the guest."""

LOCK_SYSCTL = "kernel.modules_disabled = 1\n"


def text_of(name: str) -> str:
    """The text of a file of `umlbuild/launcher/guest/`."""
    return (files("umlbuild.launcher") / "guest" / name).read_text(encoding="utf-8")


def script(name: str, *, path: str | None = None) -> Entry:
    """A guest script of ours as an executable in `/usr/lib/umlbuild/` (or at `path`)."""
    return Entry(path=path or f"{LIB}/{name.removesuffix('.sh')}", content=text_of(name), mode=0o755)


def agent() -> Entry:
    """The program that serves commands over a serial line when the launcher asks for it."""
    return script("agent.sh")


def module_entries(guest: Guest) -> list[Entry]:
    """The modules to load at boot, and the lock after them.

    Source: modules-load.d(5), which sysvinit's kmod script reads too; uml-facts 7.4: systemd-sysctl is
    ordered after systemd-modules-load, and sysvinit's procps after kmod, so the lock comes last.
    """
    entries = []
    if guest.modules:
        text = "".join(f"{name}\n" for name in guest.modules)
        entries.append(Entry(path="/etc/modules-load.d/umlbuild.conf", content=text))
    if guest.lock_modules:
        entries.append(Entry(path="/etc/sysctl.d/99-umlbuild-modules.conf", content=LOCK_SYSCTL))
    return entries


def packages(guest: Guest) -> list[str]:
    """What modules and interfaces need in the guest, whatever the init."""
    names = ["kmod"] if guest.modules else []
    match guest.manager:
        case "ifupdown":
            names += ["ifupdown", "iproute2", *(["udhcpc"] * guest.has_dhcp)]
        case "networkd":
            names += ["iproute2", *(["systemd-resolved"] * (guest.has_dhcp and guest.has_resolved_package))]
        case "busybox" | None:
            pass
    return names


def applets(names: Iterable[str]) -> list[Entry]:
    """Commands that busybox is under those names."""
    return [Entry(path=f"/usr/bin/{name}", type="symlink", target="/bin/busybox") for name in names]


APPLETS = """
[ ash awk base64 basename cat chgrp chmod chown clear cmp cp cut date dd df diff dirname dmesg du echo egrep env expr
false fgrep find free fstrim getty grep groups gunzip gzip halt head hostname hwclock id ifconfig ifdown ifup insmod
ip kill killall less ln logger login logname ls lsmod md5sum mkdir mkfifo mknod mktemp modprobe more mount mv nc
netstat nproc nslookup od passwd pidof ping ping6 pivot_root poweroff printf ps pwd readlink realpath reboot rm rmdir
rmmod route run-parts sed seq setsid sh sha256sum sleep sort stat strings stty su switch_root sync sysctl syslogd tail
tar tee telnet test tftp time timeout top touch tr traceroute true tty udhcpc umount uname uniq uptime usleep vi wc
wget which who whoami xargs yes zcat
"""
"""What a bare root gets as commands. Source: `busybox --list` of busybox-static in bookworm and trixie."""
