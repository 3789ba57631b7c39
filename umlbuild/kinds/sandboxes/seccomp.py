"""The filter of system calls that UML runs under, as a classic BPF program. Pure.

A list of what is allowed; everything else fails with EPERM. It does not kill: guest programs of UML's `seccomp`
mode run under a filter of their own that wants SIGTRAP, and killing outranks that. In ptrace mode the guest's
system calls never come here: ptrace takes them before.

A strict filter is for a sandbox that leaves UML in the host's own tree of files: what Landlock has no right for (modes,
owners, times, sending to the path of a socket) cannot be called at all.

Source: linux/filter.h, linux/seccomp.h, asm/unistd_64.h; which calls UML makes was found by strace and by booting 6.1
and 7.3 in both modes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from umlbuild.kinds.transports.base import Sockets

_AUDIT_ARCH_X86_64 = 0xC000003E
_X32 = 0x40000000
"""Numbers from here on are the x32 ABI's: a second way to every call."""
_LD, _JEQ, _JGE, _JSET, _RET, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_NR, _ARCH, _ARG0, _ARG1, _ARG4 = 0, 4, 16, 24, 48
"""Offsets in struct seccomp_data; of the arguments the low 32 bits, the high ones are 4 bytes further."""
_ALLOW = 0x7FFF0000
_EPERM, _ENOSYS, _EAFNOSUPPORT = (0x00050000 | errno for errno in (1, 38, 97))

_NAMESPACES = 0x7E020000
"""clone(2): CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_SETID = 0o6000
"""A file that the guest makes in a share is the user's: as setuid it would lend his rights to others."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
"""Type into somebody else's terminal."""
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 1, 2, 10, 16, 17
_SOCK_STREAM, _SOCK_TYPE = 1, 0xF

# Processes of the guest: UML makes them, stops them at each system call, reads and writes their registers.
_PROCESSES = {
    "ptrace": 101, "wait4": 61, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "exit": 60,
    "exit_group": 231, "kill": 62, "tgkill": 234, "getpid": 39, "getppid": 110, "gettid": 186, "getpgrp": 111,
    "setsid": 112, "set_tid_address": 218, "set_robust_list": 273, "rseq": 334, "prctl": 157, "arch_prctl": 158,
    "modify_ldt": 154, "personality": 135, "prlimit64": 302, "seccomp": 317, "sched_yield": 24, "futex": 202,
    "uname": 63, "sched_getaffinity": 204,
}  # fmt: skip
# The guest's memory: one file, mapped page by page.
_MEMORY = {
    "mmap": 9, "munmap": 11, "mprotect": 10, "madvise": 28, "brk": 12, "memfd_create": 319, "fallocate": 285,
    "ftruncate": 77,
}  # fmt: skip
# Interrupts and time.
_SIGNALS = {
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "rt_sigsuspend": 130, "rt_sigtimedwait": 128,
    "sigaltstack": 131, "signalfd4": 289, "timer_create": 222, "timer_settime": 223, "timer_gettime": 224,
    "clock_gettime": 228, "clock_nanosleep": 230, "nanosleep": 35, "restart_syscall": 219,
}  # fmt: skip
# Disks, consoles and UML's own files: what can be opened is what the sandbox holds.
_FILES = {
    "read": 0, "write": 1, "readv": 19, "writev": 20, "pread64": 17, "pwrite64": 18, "open": 2, "openat": 257,
    "close": 3, "close_range": 436, "lseek": 8, "dup": 32, "dup2": 33, "dup3": 292, "fcntl": 72, "fstat": 5,
    "newfstatat": 262, "stat": 4, "lstat": 6, "statx": 332, "statfs": 137, "access": 21, "faccessat": 269,
    "faccessat2": 439, "fsync": 74, "fdatasync": 75, "getcwd": 79, "chdir": 80, "getdents64": 217, "mkdir": 83,
    "rmdir": 84, "unlink": 87, "readlink": 89, "pipe2": 293, "pipe": 22, "getrandom": 318,
}  # fmt: skip
# Waiting for them, and sockets that UML was given or has made in pairs.
_EVENTS = {
    "poll": 7, "ppoll": 271, "epoll_create": 213, "epoll_create1": 291, "epoll_ctl": 233, "epoll_wait": 232,
    "sendmsg": 46, "sendmmsg": 307, "recvfrom": 45, "recvmsg": 47, "recvmmsg": 299, "setsockopt": 54,
}  # fmt: skip
# mconsole's socket.
_SOCKETS = {"socketpair": 53, "bind": 49, "sendto": 44}
# Transports that open a socket themselves.
_CONNECT = {"connect": 42, "getsockname": 51, "getsockopt": 55}
# What hostfs does in a share. Whether it may write is the mount's (or Landlock's) affair.
_SHARE = {
    "symlink": 88, "link": 86, "rename": 82, "renameat2": 316, "mknod": 133, "mknodat": 259, "truncate": 76,
    "umask": 95,
}  # fmt: skip
_ATTRIBUTES = {
    "chmod": 90, "fchmod": 91, "chown": 92, "lchown": 94, "fchown": 93, "utimensat": 280, "utimes": 235, "utime": 132,
}  # fmt: skip
_MODES = ((2, 2), (257, 3), (90, 1), (91, 1), (133, 1), (259, 2))
"""open, openat, chmod, fchmod, mknod, mknodat: (number, which argument is the mode)."""
_IOCTL, _CLONE, _CLONE3, _SOCKET, _SOCKETPAIR, _SENDTO = 16, 56, 435, 41, 53, 44


def program(*, sockets: Sockets, share: bool, strict: bool = False) -> bytes:
    """The filter as an array of `struct sock_filter`; `sockets`: what transports open, `share`: hostfs is used,
    `strict`: no socket at all can be opened, and attributes of files cannot be changed."""
    assert not strict or sockets == "none"
    groups = [_PROCESSES, _MEMORY, _SIGNALS, _FILES, _EVENTS]
    groups += [_CONNECT] * (sockets != "none") + [_SHARE] * share
    groups += [] if strict else [_SOCKETS, *[_ATTRIBUTES] * share]
    allowed = [number for group in groups for number in group.values() if number != _CLONE]
    families = [] if strict else [AF_UNIX]
    families += [AF_INET, AF_INET6, AF_NETLINK, AF_PACKET] if sockets == "network" else []
    code = [
        (_LD, 0, 0, _ARCH), (_JEQ, 1, 0, _AUDIT_ARCH_X86_64), (_RET, 0, 0, _EPERM),
        (_LD, 0, 0, _NR), (_JGE, 0, 1, _X32), (_RET, 0, 0, _EPERM),
        # glibc falls back to clone(2), whose flags can be read here; those of clone3(2) lie in memory.
        *_when(_CLONE3, [(_RET, 0, 0, _ENOSYS)]),
        *_when(_CLONE, [(_LD, 0, 0, _ARG0), (_JSET, 0, 1, _NAMESPACES), (_RET, 0, 0, _EPERM), (_RET, 0, 0, _ALLOW)]),
        *_when(_SOCKET, [(_LD, 0, 0, _ARG0), *_any_of(families, _EAFNOSUPPORT)]),
        *_when(_IOCTL, [
            (_LD, 0, 0, _ARG1), (_JEQ, 2, 0, _TIOCSTI), (_JEQ, 1, 0, _TIOCLINUX), (_RET, 0, 0, _ALLOW),
            (_RET, 0, 0, _EPERM),
        ]),
        *(_pairs_and_answers() if strict else []),
        *_modes({number: argument for number, argument in _MODES if number in allowed}),
        *_any_of(sorted(set(allowed)), _EPERM),
    ]  # fmt: skip
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _when(number: int, then: Sequence[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Only for one system call; `then` ends in a verdict on every way."""
    return [(_JEQ, 0, len(then), number), *then]


def _pairs_and_answers() -> list[tuple[int, int, int, int]]:
    """Allow pairs of stream sockets, and sendto without an address: what cannot reach a socket by its path."""
    stream = [
        (_LD, 0, 0, _ARG0), (_JEQ, 0, 3, AF_UNIX), (_LD, 0, 0, _ARG1), (_AND, 0, 0, _SOCK_TYPE),
        (_JEQ, 1, 0, _SOCK_STREAM), (_RET, 0, 0, _EPERM), (_RET, 0, 0, _ALLOW),
    ]  # fmt: skip
    nowhere = [
        (_LD, 0, 0, _ARG4), (_JEQ, 0, 2, 0), (_LD, 0, 0, _ARG4 + 4), (_JEQ, 1, 0, 0), (_RET, 0, 0, _EPERM),
        (_RET, 0, 0, _ALLOW),
    ]  # fmt: skip
    return [*_when(_SOCKETPAIR, stream), *_when(_SENDTO, nowhere)]


def _modes(arguments: Mapping[int, int]) -> list[tuple[int, int, int, int]]:
    """Allow these calls unless their mode has a setuid or setgid bit."""
    code = []
    for number, argument in arguments.items():
        at = _ARG0 + 8 * argument
        verdict = [(_LD, 0, 0, at), (_JSET, 0, 1, _SETID), (_RET, 0, 0, _EPERM), (_RET, 0, 0, _ALLOW)]
        code += _when(number, verdict)
    return code


def _any_of(values: Sequence[int], otherwise: int) -> list[tuple[int, int, int, int]]:
    """Allow one of the values; a jump reaches 255 instructions."""
    assert len(values) <= 255
    rows = [(_JEQ, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [*rows, (_RET, 0, 0, otherwise), (_RET, 0, 0, _ALLOW)]
