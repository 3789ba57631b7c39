"""What installing and running programs leaves in a root, and no two builds or machines should share.

Taken out: logs, caches that are made anew, backup files, machine-ids, random seeds, ssh host keys.
Made the same: times after the fixed epoch, days of password changes. Nothing that was declared is touched.

Source: experiments B; two builds on different days, users and file systems compared.
"""

from __future__ import annotations

import struct

from umlbuild.host.accounts import TODAY, group_ids
from umlbuild.host.process import EPOCH
from umlbuild.host.tree import Tree

_LEFT = (
    "/dev/*", "/proc/*", "/sys/*", "/run/*", "/tmp/*", "/var/tmp/*",
    "/var/lib/apt/lists/*", "/var/cache/apt/*", "/var/cache/ldconfig/aux-cache", "/var/cache/debconf/*-old",
    "/var/lib/dpkg/*-old", "/var/lib/dpkg/available", "/var/log/*.log", "/var/log/apt/*",
    "/var/log/faillog", "/var/log/lastlog",
    "/etc/.pwd.lock", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-",
    "/etc/subgid-",
    "/var/lib/dbus/machine-id", "/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed",
    "/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key.pub",
)  # fmt: skip

# Machines of one image would share the keys that openssh-server made while it was installed. Each makes
# its own before its first sshd. Source: ssh-keygen(1) -A; /etc/init.d/ssh reads /etc/default/ssh.
_SYSTEMD = "/usr/lib/systemd/systemd"
_SSH_UNIT = "/etc/systemd/system/ssh.service.d/host-keys.conf"
_SSH_DROP_IN = b"[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n"
_SSH_DEFAULT = b"\n# Host keys are made at the first start.\nssh-keygen -A >/dev/null\n"

# Read and search for group adm, also on what is made in it; fakechroot loses it. Source: systemd's
# tmpfiles.d/systemd.conf; the layout is the kernel's posix_acl_xattr.h: version 2, then (tag, permissions,
# id) of user, group, adm, mask, others.
_JOURNAL = "/var/log/journal"
_ADM = 4
_NO_ID = 0xFFFFFFFF
_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 7, _NO_ID), (4, 5, _NO_ID), (8, 5, _ADM), (16, 5, _NO_ID), (32, 5, _NO_ID))
)


def clean(tree: Tree) -> None:
    """Take out what is the machine's or the moment's, so that every one of them gives the same bytes."""
    had_keys = bool(tree.matching("/etc/ssh/ssh_host_*_key"))
    tree.remove(*(f"/{path}" for pattern in _LEFT for path in tree.matching(pattern)))
    if had_keys and tree.get(_SYSTEMD) is not None:
        tree.put_file(_SSH_UNIT, _SSH_DROP_IN)
    elif had_keys:
        tree.replace("/etc/default/ssh", (tree.read("/etc/default/ssh") or b"") + _SSH_DEFAULT)
    if tree.get("/etc/machine-id") is not None or tree.get(_SYSTEMD) is not None:
        tree.put_file("/etc/machine-id", b"", mode=0o444)  # empty: systemd makes one at the first boot
    shadow = tree.read("/etc/shadow")
    if shadow is not None:
        tree.replace("/etc/shadow", fixed_days(shadow))
    _journal(tree)
    devices = tree.get("/dev")
    if devices is not None:  # mmdebstrap writes its header in another format than tar does
        tree.put(devices.but())
    for member in tree:
        if member.kind in ("char", "block"):
            tree.remove(f"/{member.path}")
        elif member.mtime > EPOCH:
            tree.put(member.but(mtime=EPOCH))


def fixed_days(shadow: bytes) -> bytes:
    """The shadow file with one day of the last password change, wherever one is noted. Source: shadow(5)."""
    lines = []
    for line in shadow.split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit() and fields[2] != b"0":
            fields[2] = TODAY.encode()
        lines.append(b":".join(fields))
    return b"\n".join(lines)


def _journal(tree: Tree) -> None:
    journal = tree.get(_JOURNAL)
    gid = group_ids(tree.text("/etc/group")).get("systemd-journal")
    if journal is not None and gid is not None:
        acls = {"system.posix_acl_access": _ACL, "system.posix_acl_default": _ACL}
        tree.put(journal.but(mode=0o2755, gid=gid, xattrs=acls))
