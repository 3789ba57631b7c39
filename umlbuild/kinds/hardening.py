"""`[hardening]`: what makes it hard for guest root to become code in the UML process. All on by default.

The sandbox is the wall between guest and host; this is the moat in front of it. Each item is a set of Kconfig
symbols, which are checked in the kernel's final configuration, and of sysctls, which are set at boot. A prebuilt
kernel keeps the configuration that it has; `umlbuild show` lists what is off for that.

Source: uml-facts 3.4 (with /dev/mem guest root wrote the memory of the UML kernel on 6.1 and 7.3);
Documentation/admin-guide/sysctl/kernel.rst; security/lockdown/Kconfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from umlbuild.specs.model import Model
from umlbuild.specs.rootfs import Entry

SYSCTL_FILE = "/etc/sysctl.d/98-umlbuild-hardening.conf"


@dataclass(frozen=True)
class Item:
    """What one field of `[hardening]` stands for."""

    kconfig: Mapping[str, str] = field(default_factory=dict)
    optional_kconfig: Mapping[str, str] = field(default_factory=dict)
    """Only where the kernel knows the symbol."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """A kernel without one of them is no error."""
    without_modules: bool = False
    """Only for kernels that load no modules."""


ITEMS: Mapping[str, Item] = {
    "devmem": Item(kconfig={"DEVMEM": "n"}, optional_kconfig={"DEVPORT": "n"}),
    "kcore": Item(kconfig={"PROC_KCORE": "n"}),
    "kexec": Item(optional_kconfig={"KEXEC": "n", "KEXEC_FILE": "n"}, sysctls={"kernel.kexec_load_disabled": "1"}),
    "lockdown": Item(
        kconfig={
            "SECURITY": "y", "SECURITYFS": "y", "SECURITY_LOCKDOWN_LSM": "y", "SECURITY_LOCKDOWN_LSM_EARLY": "y",
            "LOCK_DOWN_KERNEL_FORCE_INTEGRITY": "y",
        },
        without_modules=True,
    ),
    "kptr": Item(sysctls={"kernel.kptr_restrict": "2"}),
    "dmesg": Item(optional_kconfig={"SECURITY_DMESG_RESTRICT": "y"}, sysctls={"kernel.dmesg_restrict": "1"}),
    "unprivileged_bpf": Item(sysctls={"kernel.unprivileged_bpf_disabled": "1"}),
}  # fmt: skip
"""Field → what it does."""


class Hardening(Model):
    """Items of the profile; each can be switched off by its name."""

    devmem: bool = True
    """No /dev/mem and /dev/port: by them guest root writes the memory of the UML process."""
    kcore: bool = True
    """No /proc/kcore: by it guest root reads that memory."""
    kexec: bool = True
    """No kexec: no second kernel is loaded past this one."""
    lockdown: bool = True
    """The kernel's lockdown (integrity) from the first moment, in kernels without modules: it would refuse modules that
    are not signed."""
    kptr: bool = True
    """No kernel addresses in /proc, not even for root."""
    dmesg: bool = True
    """The kernel's log for root only."""
    unprivileged_bpf: bool = True
    """BPF programs for root only."""

    def on(self, *, has_modules: bool) -> dict[str, Item]:
        """The items that apply."""
        return {
            name: item
            for name, item in ITEMS.items()
            if getattr(self, name) and not (item.without_modules and has_modules)
        }

    def entry(self, *, has_modules: bool) -> Entry | None:
        """The guest's sysctl file, if there is anything in it. A leading dash: a missing sysctl is no error."""
        items = self.on(has_modules=has_modules).values()
        text = "".join(sorted(f"-{key} = {value}\n" for item in items for key, value in item.sysctls.items()))
        return Entry(path=SYSCTL_FILE, content=text) if text else None
