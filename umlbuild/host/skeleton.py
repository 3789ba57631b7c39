"""The root file system that stands before any package is unpacked: directories, links, fixed accounts.

Source: hier(7), Debian policy 9.2.2 and base-passwd's passwd.master and group.master (the static ids).
"""

from __future__ import annotations

from umlbuild.host.tree import Tree

_DIRECTORIES = {
    "boot": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "mnt": 0o755, "opt": 0o755, "proc": 0o755,
    "root": 0o700, "run": 0o755, "srv": 0o755, "sys": 0o755, "tmp": 0o1777, "usr/bin": 0o755,
    "usr/lib": 0o755, "usr/lib64": 0o755, "usr/sbin": 0o755, "var/cache": 0o755, "var/lib": 0o755,
    "var/log": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
_MERGED = ("bin", "lib", "lib64", "sbin")
_GROUPS = {
    "root": 0, "daemon": 1, "bin": 2, "sys": 3, "adm": 4, "tty": 5, "disk": 6, "mail": 8, "kmem": 15,
    "dialout": 20, "cdrom": 24, "sudo": 27, "audio": 29, "www-data": 33, "shadow": 42, "utmp": 43,
    "video": 44, "staff": 50, "users": 100, "nogroup": 65534,
}  # fmt: skip
_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""


def skeleton() -> Tree:
    """A merged-/usr root without a program in it; root is locked."""
    tree = Tree()
    for path, mode in _DIRECTORIES.items():
        tree.put_dir(path, mode=mode)
    for name in _MERGED:
        tree.put_symlink(name, f"usr/{name}")
    names = [line.split(":")[0] for line in _PASSWD.splitlines()]
    tree.put_file("/etc/passwd", _PASSWD.encode())
    tree.put_file("/etc/group", "".join(f"{name}:x:{gid}:\n" for name, gid in _GROUPS.items()).encode())
    shadow = "".join(f"{name}:*:0:0:99999:7:::\n" for name in names)
    tree.put_file("/etc/shadow", shadow.encode(), mode=0o640, gid=_GROUPS["shadow"])
    gshadow = "".join(f"{name}:*::\n" for name in _GROUPS)
    tree.put_file("/etc/gshadow", gshadow.encode(), mode=0o640, gid=_GROUPS["shadow"])
    return tree
