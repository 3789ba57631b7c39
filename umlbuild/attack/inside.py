"""What guest root tries against the guest's own kernel. Data only.

One that gets through is no escape: the sandbox is there for the code that the guest then is. It is reported as "weak",
since the kernel is the wall in front of the sandbox. Calls that are let in get arguments that do nothing.

Source: uml-facts 2.4 and 3.4; the manual page of each call; Documentation/admin-guide/sysctl/kernel.rst.
"""

from __future__ import annotations

import struct

from umlbuild.attack.attempt import Attempt, Body, ByGuestCode, Evidence, Judge, Needs, Scene, is_let_in, succeeds
from umlbuild.attack.program import AT_FDCWD, O_RDWR, O_WRONLY, Program

_CHARACTER = 0o020600
_NODE = "/var/tmp/attack-node"
_AT = 24 << 20
"""A page behind the kernel's program, whose code is mapped read-only (a write to it is a panic on 6.1)."""
_SIOCETHTOOL, _ETHTOOL_FLASHDEV = 0x8946, 0x33


def _inside(name: str, tries: str, judge: Judge, body: Body, *needs: Needs) -> Attempt:
    return ByGuestCode(f"guest-{name}", "guest", tries, judge, needs, weak=True, program=body)


def _node(minor: int) -> Body:
    """Of the kernel's own devices: read a few bytes, and write them back as they are."""

    def body(_scene: Scene, program: Program) -> None:
        program.call("unlink", _NODE)
        program.call("mknod", _NODE, _CHARACTER, 1 << 8 | minor)
        fd = program.call("openat", AT_FDCWD, _NODE, O_RDWR, label="open")
        room = program.buffer(16)
        program.call("lseek", fd, _AT, 0)
        got = program.call("read", fd, room, 16, label="read")
        program.call("lseek", fd, _AT, 0)
        program.call("write", fd, room, got, label="write")
        program.call("unlink", _NODE)

    return body


def _wrote(_scene: Scene, evidence: Evidence) -> str:
    done = (evidence.results or {}).get("write", -1) > 0
    return "the guest's kernel can be rewritten" if done else ""


def _reads_kcore(_scene: Scene, program: Program) -> None:
    fd = program.call("openat", AT_FDCWD, "/proc/kcore", 0)
    program.call("read", fd, program.buffer(64), 64, label="read")


def _module(_scene: Scene, program: Program) -> None:
    program.call("init_module", 0, 0, "", label="init_module")
    program.call("finit_module", -1, "", 0, label="finit_module")


def _unlocks(_scene: Scene, program: Program) -> None:
    fd = program.call("openat", AT_FDCWD, "/proc/sys/kernel/modules_disabled", O_WRONLY)
    program.call("write", fd, b"0\n", 2, label="write")


def _kexec(_scene: Scene, program: Program) -> None:
    program.call("kexec_load", 0, 0, 0, 0, label="kexec_load")
    program.call("kexec_file_load", -1, -1, 0, 0, 0, label="kexec_file_load")


def _bpf(_scene: Scene, program: Program) -> None:
    program.call("bpf", 0, 0, 0, label="bpf")


def _bpf_as_user(scene: Scene, program: Program) -> None:
    program.call("setuid", 65534)
    _bpf(scene, program)


def _flash(_scene: Scene, program: Program) -> None:
    flash = program.data(struct.pack("<II128s", _ETHTOOL_FLASHDEV, 0, b"attack"))
    fd = program.call("socket", 2, 2, 0)
    program.call("ioctl", fd, _SIOCETHTOOL, struct.pack("<16sQ16x", b"vec0", flash), label="flash")


def _lockdown(_scene: Scene, program: Program) -> None:
    program.call("mount", "none", "/sys/kernel/security", "securityfs", 0, 0)
    program.show("/sys/kernel/security/lockdown")


def _is_loose(_scene: Scene, evidence: Evidence) -> str:
    locked = any(word in evidence.output for word in (b"[integrity]", b"[confidentiality]"))
    return "" if locked else "the guest's kernel is not locked down"


_REFUSED = (-1, -19, -95, -999)
"""EPERM, ENODEV, EOPNOTSUPP, not come to."""

INSIDE: tuple[Attempt, ...] = (
    _inside("mem", "rewrite its kernel by /dev/mem", _wrote, _node(1)),
    _inside("port", "use I/O ports by /dev/port", succeeds("read"), _node(4)),
    _inside("kcore", "read its kernel by /proc/kcore", succeeds("read"), _reads_kcore),
    _inside("module", "load a module", is_let_in("init_module", "finit_module"), _module),
    _inside("unlock-modules", "allow modules again", succeeds("write"), _unlocks),
    _inside("kexec", "load another kernel", is_let_in("kexec_load", "kexec_file_load"), _kexec),
    _inside("bpf", "use BPF as root", is_let_in("bpf"), _bpf),
    _inside("bpf-user", "use BPF as an ordinary user", is_let_in("bpf"), _bpf_as_user),
    _inside("flash", "replace the network's filter by ethtool's flash", is_let_in("flash", denials=_REFUSED), _flash,
            "network device"),
    _inside("lockdown", "find its kernel not locked down", _is_loose, _lockdown),
)  # fmt: skip
