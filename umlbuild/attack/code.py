"""What code tries that has taken over UML's process: system calls with UML's own rights, in its sandbox. Data only.

Arguments that would harm the host if a call were let in are wrong on purpose (a null pointer, an empty image): what
is looked at then is whether the call was refused before anybody read them.

Source: the manual page of each call in section 2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from umlbuild.attack.attempt import (
    Attempt,
    Body,
    ByCode,
    Group,
    Judge,
    Scene,
    changes_victim,
    is_let_in,
    makes,
    reaches,
    reads_secret,
    sees,
    signals,
    succeeds,
)
from umlbuild.attack.program import AT_FDCWD, O_CREAT, O_PATH, O_WRONLY, Program

_AF_UNIX, _AF_INET, _AF_NETLINK, _AF_PACKET, _AF_VSOCK, _AF_ALG = 1, 2, 16, 17, 40, 38
_STREAM, _DGRAM, _RAW = 1, 2, 3
_CLONE_NEWUSER, _CLONE_NEWNS, _CLONE_NEWNET = 0x10000000, 0x20000, 0x40000000
_MS_BIND = 4096
_SIGUSR1 = 10
_PTRACE_ATTACH, _PTRACE_SEIZE = 16, 0x4206
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C


def _code(name: str, group: Group, tries: str, judge: Judge, body: Body) -> Attempt:
    return ByCode(name, group, tries, judge, program=body)


def _unix(path: bytes) -> bytes:
    return struct.pack("<H", _AF_UNIX) + path


def _reads(scene: Scene, program: Program) -> None:
    program.show(str(scene.canaries.secret))


def _reads_upwards(scene: Scene, program: Program) -> None:
    program.call("chdir", "/dev/shm")
    program.show("../../../../../../.." + str(scene.canaries.secret))


def _writes(scene: Scene, program: Program) -> None:
    program.put(str(scene.canaries.victim), b"changed!!\n")


def _chmods(scene: Scene, program: Program) -> None:
    program.call("chmod", str(scene.canaries.victim), 0o600)


def _removes(scene: Scene, program: Program) -> None:
    program.call("unlink", str(scene.canaries.victim))


def _renames(scene: Scene, program: Program) -> None:
    where = str(scene.canaries.open / f"{scene.canaries.token}-renamed")
    program.call("rename", str(scene.canaries.victim), where)


def _truncates(scene: Scene, program: Program) -> None:
    program.call("truncate", str(scene.canaries.victim), 0)


def _creates(scene: Scene, program: Program) -> None:
    for place in (str(scene.canaries.open), "/tmp", "/var/tmp", "/run", "/etc", "/root", "/"):
        program.put(f"{place.rstrip('/')}/{scene.canaries.token}-code-made", b"x")


def _links(scene: Scene, program: Program) -> None:
    token = scene.canaries.token
    program.call("symlink", "/etc/passwd", f"{scene.canaries.open}/{token}-code-link")
    program.call("link", str(scene.canaries.victim), f"{scene.canaries.open}/{token}-code-link2")


def _lists(path: str) -> Body:
    return lambda _scene, program: program.names(path)


def _bundle_writes(scene: Scene, program: Program) -> None:
    """Its own kernel and image, which are the next start's, and the host's launcher."""
    for number, path in enumerate((f"{scene.home}/linux", f"{scene.home}/root.img", f"{scene.bundle}/run")):
        program.call("openat", AT_FDCWD, path, O_WRONLY, label=f"write-{number}")


def _other_process_files(scene: Scene, program: Program) -> None:
    pid = scene.canaries.pid
    for name in ("environ", "cmdline", "status"):
        program.show(f"/proc/{pid}/{name}")
    program.show(f"/proc/{pid}/root{scene.canaries.secret}")
    program.show(f"/proc/self/root{scene.canaries.secret}")


def _kills(scene: Scene, program: Program) -> None:
    program.call("kill", scene.canaries.pid, _SIGUSR1)
    program.call("tgkill", scene.canaries.pid, scene.canaries.pid, _SIGUSR1)


def _pidfd(scene: Scene, program: Program) -> None:
    fd = program.call("pidfd_open", scene.canaries.pid, 0)
    program.call("pidfd_send_signal", fd, _SIGUSR1, 0, 0)


def _ptraces(scene: Scene, program: Program) -> None:
    program.call("ptrace", _PTRACE_SEIZE, scene.canaries.pid, 0, 0, label="seize")


def _reads_memory(scene: Scene, program: Program) -> None:
    room = program.buffer(4096)
    there = struct.pack("<QQ", room.address, 4096)
    remote = struct.pack("<QQ", 0x400000, 64)
    program.call("process_vm_readv", scene.canaries.pid, there, 1, remote, 1, 0, label="read")


def _compares(scene: Scene, program: Program) -> None:
    own = program.call("getpid")
    program.call("kcmp", own, scene.canaries.pid, 0, 0, 0, label="kcmp")


def _connects(address: Callable[[Scene], bytes], word: str, family: int = _AF_UNIX, kind: int = _STREAM) -> Body:
    def body(scene: Scene, program: Program) -> None:
        fd = program.call("socket", family, kind, 0)
        there = address(scene)
        program.call("connect", fd, there, len(there))
        program.write(word.encode(), fd)

    return body


def _inherited(_scene: Scene, program: Program) -> None:
    """Directories that were left open would be ways to the host's root."""
    for fd in range(3, 32):
        program.entries(fd)
        program.call("openat", fd, "../../../../../../../../etc/passwd", 0, label=f"fd-{fd}")


def _one(label: str, *arguments: int | str | bytes) -> Body:
    """A single call, by its name."""

    def body(_scene: Scene, program: Program) -> None:
        program.call(label, *arguments, label=label)

    return body


def _socket(family: int, kind: int) -> Body:
    return _one("socket", family, kind, 0)


def _mounts(_scene: Scene, program: Program) -> None:
    program.call("mount", "none", "/dev/shm", "proc", 0, 0, label="mount")
    program.call("mount", "/", "/dev/shm", 0, _MS_BIND, 0, label="bind")


def _int80(scene: Scene, program: Program) -> None:
    """The 32-bit entry has other numbers: a filter that knows one table only lets them in. 39 is mkdir there."""
    program.int80(39, str(scene.canaries.open / f"{scene.canaries.token}-int80"), 0o777)
    program.int80(20, label="getpid")


def _x32(_scene: Scene, program: Program) -> None:
    program.call("getpid", x32=True, label="getpid")


def _set_id_in_share(scene: Scene, program: Program) -> None:
    path = f"{scene.writable_share}/code-setuid"
    fd = program.call("openat", AT_FDCWD, path, O_WRONLY | O_CREAT, 0o755)
    program.call("fchmod", fd, 0o4755, label="fchmod")
    program.call("chmod", path, 0o6755, label="chmod")


def _handle(_scene: Scene, program: Program) -> None:
    fd = program.call("openat", AT_FDCWD, "/", O_PATH)
    program.call("open_by_handle_at", fd, bytes(64), 0, label="open_by_handle_at")


_FILES = (
    _code("code-read", "code", "read a host file", reads_secret, _reads),
    _code("code-read-up", "code", "read a host file by ..", reads_secret, _reads_upwards),
    _code("code-write", "code", "overwrite a host file", changes_victim, _writes),
    _code("code-chmod", "code", "chmod a host file", changes_victim, _chmods),
    _code("code-remove", "code", "remove a host file", changes_victim, _removes),
    _code("code-rename", "code", "rename a host file", changes_victim, _renames),
    _code("code-truncate", "code", "truncate a host file", changes_victim, _truncates),
    _code("code-create", "code", "make files in the host's directories", makes("code-made"), _creates),
    _code("code-link", "code", "make links in a host directory", makes("code-link"), _links),
    _code("code-list-root", "code", "list the host's /", sees("/"), _lists("/")),
    _code("code-list-etc", "code", "list the host's /etc", sees("/etc"), _lists("/etc")),
    _code("code-list-dev", "code", "list the host's /dev", sees("/dev"), _lists("/dev")),
    _code("code-list-sys", "code", "list the host's /sys", sees("/sys"), _lists("/sys")),
    _code("code-list-proc", "code", "list the host's processes", sees("/proc"), _lists("/proc")),
    _code("code-bundle", "code", "open its kernel, its image, its launcher for writing",
          succeeds("write-0", "write-1", "write-2"), _bundle_writes),
    _code("code-inherited", "code", "use descriptors that were left open",
          succeeds(*(f"fd-{fd}" for fd in range(3, 32))), _inherited),
)  # fmt: skip

_PROCESSES = (
    _code("code-proc-files", "processes", "read a host process's /proc files", reads_secret, _other_process_files),
    _code("code-kill", "processes", "signal a host process", signals, _kills),
    _code("code-pidfd", "processes", "signal a host process by a pidfd", signals, _pidfd),
    _code("code-ptrace", "processes", "trace a host process", succeeds("seize"), _ptraces),
    _code("code-read-memory", "processes", "read a host process's memory", succeeds("read"), _reads_memory),
    _code("code-kcmp", "processes", "compare itself with a host process", succeeds("kcmp"), _compares),
)  # fmt: skip

_SOCKETS = (
    _code("code-unix", "sockets", "connect to a host's unix socket", reaches("code-unix"),
          _connects(lambda scene: _unix(str(scene.canaries.stream).encode() + b"\0"), "code-unix")),
    _code("code-unix-datagram", "sockets", "send to a host's datagram socket", reaches("code-datagram"),
          _connects(lambda scene: _unix(str(scene.canaries.datagram).encode() + b"\0"), "code-datagram", kind=_DGRAM)),
    _code("code-abstract", "sockets", "connect to an abstract unix socket", reaches("code-abstract"),
          _connects(lambda scene: _unix(b"\0" + scene.canaries.abstract.encode()), "code-abstract")),
    _code("code-tcp", "sockets", "connect to the host's loopback", reaches("code-tcp"),
          _connects(lambda scene: struct.pack("<H", _AF_INET) + struct.pack(">H", scene.canaries.port)
                    + bytes([127, 0, 0, 1]) + bytes(8), "code-tcp", family=_AF_INET)),
    _code("code-udp-socket", "sockets", "make an internet socket", succeeds("socket"), _socket(_AF_INET, _DGRAM)),
    _code("code-raw-socket", "sockets", "make a raw socket", succeeds("socket"), _socket(_AF_INET, _RAW)),
    _code("code-packet", "sockets", "make a packet socket", succeeds("socket"), _socket(_AF_PACKET, _RAW)),
    _code("code-netlink", "sockets", "make a netlink socket", succeeds("socket"), _socket(_AF_NETLINK, _RAW)),
    _code("code-alg", "sockets", "reach the kernel's crypto code", succeeds("socket"), _socket(_AF_ALG, 5)),
    _code("code-vsock", "sockets", "make a vsock", succeeds("socket"), _socket(_AF_VSOCK, _STREAM)),
)  # fmt: skip


def _let_in(name: str, tries: str, body: Body, *labels: str) -> Attempt:
    return _code(f"code-{name}", "code", tries, is_let_in(*(labels or (name,))), body)


_KERNEL = (
    _let_in("unshare", "make a user and mount namespace", _one("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)),
    _let_in("clone-namespace", "clone into a user namespace", _one("clone", _CLONE_NEWUSER | 17, 0, 0, 0, 0), "clone"),
    _let_in("clone3", "clone by the call that filters cannot look into", _one("clone3", 0, 0)),
    _let_in("setns", "join another namespace", _one("setns", -1, _CLONE_NEWNET)),
    _let_in("mount", "mount", _mounts, "mount", "bind"),
    _let_in("fsopen", "mount by the new calls", _one("fsopen", "proc", 0)),
    _let_in("open_tree", "detach a mount", _one("open_tree", AT_FDCWD, "/", 1)),
    _let_in("pivot_root", "change the root", _one("pivot_root", "/", "/")),
    _let_in("chroot", "chroot", _one("chroot", "/")),
    _let_in("init_module", "load a module into the host's kernel", _one("init_module", 0, 0, "")),
    _let_in("finit_module", "load a module from a file", _one("finit_module", -1, "", 0)),
    _let_in("kexec_load", "load another kernel", _one("kexec_load", 0, 0, 0, 0)),
    _let_in("bpf", "use BPF", _one("bpf", 0, 0, 0)),
    _let_in("perf_event_open", "use perf", _one("perf_event_open", 0, 0, -1, -1, 0)),
    _let_in("userfaultfd", "use userfaultfd", _one("userfaultfd", 1 << 30)),
    _let_in("io_uring_setup", "use io_uring", _one("io_uring_setup", 0, 0)),
    _let_in("keyctl", "use the kernel's keys", _one("keyctl", 0, -3, 0)),
    _let_in("add_key", "add a key", _one("add_key", 0, 0, 0, 0, -3)),
    _let_in("handle", "open by a file handle", _handle, "open_by_handle_at"),
    _let_in("iopl", "use I/O ports", _one("iopl", 3)),
    _let_in("swapon", "swap", _one("swapon", "/dev/shm/x", 0)),
    _let_in("reboot", "reboot the host", _one("reboot", 0, 0, 0, 0)),
    _let_in("sethostname", "rename the host", _one("sethostname", "x", -1)),
    _let_in("syslog", "read the host kernel's log", _one("syslog", 10, 0, 0)),
    _let_in("tiocsti", "type into the host's terminal", _one("ioctl", 0, _TIOCSTI, "x"), "ioctl"),
    _let_in("tioclinux", "use the console's selection", _one("ioctl", 0, _TIOCLINUX, b"\x02"), "ioctl"),
    _let_in("x32", "calls by the x32 numbers", _x32, "getpid"),
    _code("code-int80", "code", "calls by the 32-bit entry", makes("int80"), _int80),
    ByCode("code-set-id", "share", "make a set-uid file in the share", succeeds("fchmod", "chmod"),
           ("writable share",), program=_set_id_in_share),
)  # fmt: skip

CODE: tuple[Attempt, ...] = (*_FILES, *_PROCESSES, *_SOCKETS, *_KERNEL)
