"""Hosts with something wrong: a command runs in a mount (and user) namespace of its own in which that is so, really.

The command's user is an ordinary one (uid 12345 there, its caller outside) without capabilities; so tests need
no root and no second account, and everything is gone with the last process.

Also a program: `python oddhosts.py forbid NUMBER COMMAND…` runs a command for which a system call fails with EPERM,
as under a container's seccomp profile. Source: user_namespaces(7), seccomp(2), <linux/bpf_common.h>.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

UID = 12345
PTRACE = 101
"""Number of ptrace on x86-64."""

_NAMESPACES = (
    "unshare", "--user", f"--map-user={UID}", f"--map-group={UID}", "--keep-caps", "--mount", "--propagation=private",
)  # fmt: skip
_NOBODY_SPECIAL = ("setpriv", "--ambient-caps=-all", "--inh-caps=-all", "--")

NO_USER_NAMESPACES = "echo 0 >/proc/sys/user/max_user_namespaces"


def sysctl(name: str, value: int) -> str:
    """Preamble: a sysctl of /proc/sys/kernel as seen by who reads it; the kernel need not have it. The others stay."""
    path = f"/proc/sys/kernel/{name}"
    copy = (
        "mount -t tmpfs t /mnt; mkdir /mnt/k; mount --bind /proc/sys/kernel /mnt/k; mount -t tmpfs t /proc/sys/kernel;"
        " cp -r /mnt/k/. /proc/sys/kernel 2>/dev/null || :; umount /mnt/k; umount /mnt"
    )
    return f"{copy}; mkdir -p {os.path.dirname(path)}; echo {value} >{path}"


def without_ids(place: Path, *, ids: bool = False) -> str:
    """Preamble: a user called odd, with or without subordinate ids. Files of it are written to `place`."""
    line = f"odd:{UID}:{UID}:odd:/:/bin/sh\n"
    (place / "passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\n{line.replace('odd:', 'odd:x:', 1)}")
    (place / "subid").write_text("odd:100000:65536\n" if ids else "other:100000:65536\n")
    binds = [("passwd", "/etc/passwd"), ("subid", "/etc/subuid"), ("subid", "/etc/subgid")]
    return "; ".join(f"mount --bind {place}/{name} {target}" for name, target in binds)


def argv_on(preamble: str, command: Sequence[str], *, after: str = "") -> list[str]:
    """The command, on a host that `preamble` (shell, with capabilities there) has prepared; `after` follows it."""
    script = f"set -e; {preamble or ':'}; set +e; {' '.join(_NOBODY_SPECIAL)} \"$@\"; status=$?; {after or ':'}\n"
    return [*_NAMESPACES, "sh", "-c", f"{script}exit $status", "sh", *command]


def run_on(
    preamble: str, command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 60,
    after: str = "", cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a command on such a host to its end."""
    return run_plain(argv_on(preamble, command, after=after), env=env, timeout_s=timeout_s, cwd=cwd)


def run_plain(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 60, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command on this host to its end."""
    return subprocess.run(
        argv, env=dict(os.environ if env is None else env), cwd=cwd,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


@functools.cache
def why_not() -> str:
    """Why such hosts cannot be made here; "" if they can."""
    done = run_on("mount -t tmpfs t /mnt", ["true"])
    return "" if done.returncode == 0 else f"no namespaces for odd hosts: {done.stderr.strip()}"


def forbidding(number: int, command: Sequence[str]) -> list[str]:
    """The command, with this system call failing with EPERM."""
    return [sys.executable, os.path.abspath(__file__), "forbid", str(number), *command]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _forbid(number: int) -> None:
    """Install the filter: load the call's number; if it is this one return ERRNO|EPERM, else ALLOW."""
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("=HBBI", *row) for row in rows)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(rows), code)
    pr_set_no_new_privs, pr_set_seccomp, mode_filter = 38, 22, 2
    if libc.prctl(pr_set_no_new_privs, 1, 0, 0, 0) or libc.prctl(pr_set_seccomp, mode_filter, ctypes.byref(program)):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    assert sys.argv[1] == "forbid"
    _forbid(int(sys.argv[2]))
    os.execvp(sys.argv[3], sys.argv[3:])
