"""The guest files that several inits share, as entries for the configure stage.

The scripts themselves stand in `umlbuild/launcher/guest/`; here they only become entries.
"""

from __future__ import annotations

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
