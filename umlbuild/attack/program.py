"""A program made of system calls, as a static ELF file: what a guest would run that has taken over UML's process.

It needs no compiler, no library and nothing of the jail: a loop of machine code walks a table of calls, in which
one call's result can be an argument of a later one, and at the end the table goes to stdout. Independent parts are
sections: each is a process of its own, one after the other, and reports for itself. Never runs anything.

Source: elf(5), syscall(2), asm/unistd_64.h; x86-64 only, as the filter of system calls is.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_CODE, _RECORDS, _TEXT, _BUFFERS = 0x400000, 0x401000, 0x20000000, 0x30000000
"""Where things lie in memory: fixed, so that every address is known while the table is made."""
_PAGE = 4096
_RECORD = struct.Struct("<q7Q")
"""Number of the call, six arguments, result."""
_RESULT = 56
_COPY, _UNLESS, _INT80, _AGAIN, _THREAD = -1, -2, -3, -4, -5
"""Pseudo calls: copy a result into an argument; jump if a value is not 0; enter as a 32-bit program does; jump back
while a counter is not 0; start a thread that sleeps."""
_IDLE_S = 15
"""How long processes and threads live that only have to be there: they end, even if nobody ends them."""
_SLEEP = _RECORDS - 32
"""Where a struct timespec of `_IDLE_S` lies."""
_X32 = 0x40000000
NOT_REACHED = -999
"""The result of a call that was not come to."""

CALLS = {
    "read": 0, "write": 1, "close": 3, "lseek": 8, "mmap": 9, "rt_sigaction": 13, "ioctl": 16, "dup": 32,
    "dup2": 33, "nanosleep": 35,
    "getpid": 39, "socket": 41, "connect": 42, "sendto": 44, "bind": 49, "clone": 56, "fork": 57, "execve": 59,
    "wait4": 61, "kill": 62, "fcntl": 72, "truncate": 76, "ftruncate": 77, "chdir": 80, "rename": 82,
    "mkdir": 83, "link": 86, "unlink": 87, "symlink": 88, "chmod": 90, "fchmod": 91, "chown": 92,
    "ptrace": 101, "syslog": 103,
    "setuid": 105, "setsid": 112, "capget": 125, "mknod": 133, "pivot_root": 155, "prctl": 157, "chroot": 161,
    "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169, "sethostname": 170, "iopl": 172, "ioperm": 173,
    "init_module": 175, "getdents64": 217, "exit_group": 231, "tgkill": 234, "kexec_load": 246, "add_key": 248,
    "keyctl": 250, "openat": 257, "mknodat": 259, "unshare": 272, "fallocate": 285, "perf_event_open": 298,
    "fanotify_init": 300, "prlimit64": 302, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308,
    "process_vm_readv": 310, "kcmp": 312, "finit_module": 313, "memfd_create": 319, "kexec_file_load": 320, "bpf": 321,
    "userfaultfd": 323, "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430,
    "pidfd_open": 434, "clone3": 435, "openat2": 437, "pidfd_getfd": 438, "mount_setattr": 442,
}  # fmt: skip
_EXIT = 60
"""Of one thread."""
_THREAD_FLAGS = 0x10F00
"""CLONE_VM, FS, FILES, SIGHAND, THREAD. Source: linux/sched.h."""
AT_FDCWD = -100
O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_DIRECTORY, O_PATH = 1, 2, 0o100, 0o1000, 0o200000, 0o10000000


@dataclass(frozen=True)
class Ref:
    """The result of an earlier call."""

    record: int

    @property
    def address(self) -> int:
        """Where it lies."""
        return _RECORDS + self.record * _RECORD.size + _RESULT


@dataclass(frozen=True)
class Buffer:
    """Memory that calls fill; as an argument, its address."""

    address: int
    size: int


Argument = int | str | bytes | Ref | Buffer
"""Texts (a NUL is added) and bytes stand for their address."""


@dataclass(frozen=True)
class Section:
    """A part of a program, as a process of its own."""

    number: int
    first: int
    last: int
    """Its records."""
    labels: Mapping[str, int]


@dataclass(frozen=True)
class Report:
    """What a section gave."""

    output: bytes
    results: Mapping[str, int] | None
    """By label; None if it did not come to its end."""


class Program:
    """Calls in their order; `elf` is the file. `mark` is how the report is found among the output."""

    def __init__(self, mark: bytes) -> None:
        assert len(mark) == 16
        self._mark = mark
        self._records: list[list[int]] = []
        self._labels: dict[str, int] = {}
        self._text = bytearray()
        self._buffers = _BUFFERS
        self._open_children: list[int] = []
        self._sections = 0

    def buffer(self, size: int) -> Buffer:
        """Zeroed memory."""
        made = Buffer(self._buffers, size)
        self._buffers += -(-size // _PAGE) * _PAGE
        return made

    def data(self, content: bytes) -> int:
        """The address of bytes that are in the file."""
        at = _TEXT + len(self._text)
        self._text += content + bytes(-len(content) % 16)
        return at

    def call(self, name: str, *arguments: Argument, label: str = "", x32: bool = False) -> Ref:
        """One system call; under `label` its result can be found in the report."""
        return self._do(CALLS[name] | (_X32 if x32 else 0), arguments, label)

    def int80(self, number: int, *arguments: Argument, label: str = "") -> Ref:
        """One call through the 32-bit entry, with that ABI's number."""
        return self._do(_INT80, (number, *arguments), label)

    @contextlib.contextmanager
    def section(self) -> Iterator[list[Section]]:
        """What is done within is a process of its own, which is waited for; the list holds the section at the end."""
        made: list[Section] = []
        outer, self._labels = self._labels, {}
        number, self._sections = self._sections, self._sections + 1
        self.write(self._sign("B", number))
        pid = self.call("fork")
        at, first = self._jump_unless_child(pid), len(self._records)
        yield made
        last = len(self._records)
        self.write(self._sign("T", number))
        self.call("write", 1, _RECORDS + first * _RECORD.size, (last - first) * _RECORD.size)
        self.call("exit_group", 0)
        self._land(at)
        self.call("wait4", pid, 0, 0, 0)
        self.write(self._sign("E", number))
        made.append(Section(number, first, last, self._labels))
        self._labels = outer

    @contextlib.contextmanager
    def repeat(self, times: int) -> Iterator[None]:
        """Do what is done within so many times; a label has the last time's result. Not within another one."""
        start = len(self._records)
        yield
        self._records.append([_AGAIN, _RECORDS + start * _RECORD.size, times])

    def thread(self, label: str = "") -> Ref:
        """Start a thread that does nothing for a while."""
        return self._do(_THREAD, (), label)

    def idle(self) -> None:
        """Do nothing for as long as `child` and `thread` do."""
        self.call("nanosleep", _SLEEP, 0)

    def child(self) -> Ref:
        """What follows, up to `end_child`, is done by a new process only; its PID is the result."""
        pid = self.call("fork")
        self._open_children.append(self._jump_unless_child(pid))
        return pid

    def end_child(self) -> None:
        """The child waits here for its end."""
        self.idle()
        self.call("exit_group", 0)
        self._land(self._open_children.pop())

    def write(self, content: bytes, fd: int | Ref = 1) -> None:
        """Write bytes that are known now."""
        self.call("write", fd, content, len(content))

    def show(self, path: str, size: int = 4096) -> None:
        """Write to stdout what a file holds."""
        fd = self.call("openat", AT_FDCWD, path, 0)
        self._pass_on("read", fd, size)

    def names(self, path: str, size: int = 32768) -> None:
        """Write to stdout the names in a directory, each between NULs."""
        self.entries(self.call("openat", AT_FDCWD, path, O_DIRECTORY), size)

    def entries(self, directory: Ref | int, size: int = 32768) -> None:
        """The same of a directory that is open."""
        self._pass_on("getdents64", directory, size)

    def put(self, path: str, content: bytes, label: str = "", mode: int = 0o644) -> None:
        """Make a file, or overwrite the beginning of one."""
        fd = self.call("openat", AT_FDCWD, path, O_WRONLY | O_CREAT, mode, label=label)
        self.write(content, fd)
        self.call("close", fd)

    def sleep(self, seconds: int) -> None:
        """Do nothing for a while."""
        self.call("nanosleep", struct.pack("<qq", seconds, 0), 0)

    def elf(self) -> bytes:
        """The file."""
        assert not self._open_children
        table_size = len(self._records) * _RECORD.size
        rows = [
            *self._records,
            [CALLS["write"], 1, _RECORDS - 16, 16 + table_size],
            [CALLS["exit_group"], 0],
        ]
        table = b"".join(_RECORD.pack(row[0], *row[1:], *[0] * (7 - len(row)), NOT_REACHED % (1 << 64)) for row in rows)
        table += bytes(-len(table) % _PAGE)
        segments = [
            (0, _CODE, _PAGE + len(table), _PAGE + len(table)),
            (_PAGE + len(table), _TEXT, len(self._text), len(self._text) or 1),
            (0, _BUFFERS, 0, max(self._buffers - _BUFFERS, 1)),
        ]
        entry = _CODE + 64 + 56 * len(segments)
        head = struct.pack(
            "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, entry, 64, 0, 0, 64, 56, len(segments), 0, 0, 0
        )
        for offset, address, in_file, in_memory in segments:
            head += struct.pack("<IIQQQQQQ", 1, 7, offset, address, address, in_file, in_memory, _PAGE)
        head += _machine_code()
        assert len(head) <= _PAGE - 32
        return head.ljust(_PAGE - 32, b"\x90") + struct.pack("<qq", _IDLE_S, 0) + self._mark + table + bytes(self._text)

    def results(self, output: bytes) -> Mapping[str, int] | None:
        """The results by label, from all that was written; None if the program did not come to its end."""
        at = output.find(self._mark)
        table = output[at + 16 : at + 16 + len(self._records) * _RECORD.size]
        if at < 0 or len(table) < len(self._records) * _RECORD.size:
            return None
        return {
            label: struct.unpack_from("<q", table, number * _RECORD.size + _RESULT)[0]
            for label, number in self._labels.items()
        }

    def report(self, section: Section, output: bytes) -> Report | None:
        """What a section gave; None if it was not come to, or has not ended."""
        signs = [self._sign(letter, section.number) for letter in "BTE"]
        begin, table, end = (output.find(sign) for sign in signs)
        if begin < 0 or end < 0:
            return None
        size = (section.last - section.first) * _RECORD.size
        begin, at = begin + len(signs[0]), table + len(signs[1])
        if table < 0 or at + size > end:
            return Report(output[begin:end], None)
        rows = output[at : at + size]
        results = {
            label: struct.unpack_from("<q", rows, (record - section.first) * _RECORD.size + _RESULT)[0]
            for label, record in section.labels.items()
        }
        return Report(output[begin:table], results)

    def _sign(self, letter: str, number: int) -> bytes:
        """Of the beginning, table and end of a section; another one than the whole program's."""
        return self._mark[::-1] + f"{letter}{number:04d}".encode()

    def _jump_unless_child(self, pid: Ref) -> int:
        self._records.append([_UNLESS, pid.address, 0, 0, 0, 0, 0])
        return len(self._records) - 1

    def _land(self, jump: int) -> None:
        self._records[jump][2] = _RECORDS + len(self._records) * _RECORD.size

    def _pass_on(self, how: str, fd: Ref | int, size: int) -> None:
        room = self.buffer(size)
        got = self.call(how, fd, room, size)
        self.call("write", 1, room, got)
        self.call("close", fd)

    def _do(self, number: int, arguments: tuple[Argument, ...], label: str) -> Ref:
        copies = sum(isinstance(argument, Ref) for argument in arguments)
        at = len(self._records) + copies
        values = []
        for place, argument in enumerate(arguments):
            if isinstance(argument, Ref):
                slot = _RECORDS + at * _RECORD.size + 8 * (place + 1)
                self._records.append([_COPY, argument.address, slot])
            values.append(self._value(argument))
        self._records.append([number, *values])
        if label:
            assert label not in self._labels, label
            self._labels[label] = at
        return Ref(at)

    def _value(self, argument: Argument) -> int:
        match argument:
            case int():
                return argument % (1 << 64)
            case str():
                return self.data(argument.encode() + b"\0")
            case bytes():
                return self.data(argument)
            case Buffer():
                return argument.address
            case Ref():
                return 0


def _machine_code() -> bytes:
    """r15 is the current record."""
    parts: list[bytes | tuple[int, str] | str] = [
        b"\x41\xbf" + struct.pack("<I", _RECORDS),  # mov r15d, records
        "loop", b"\x49\x8b\x07\x48\x85\xc0", (0x78, "special"),  # mov rax,[r15]; test rax,rax; js
        b"\x49\x8b\x7f\x08\x49\x8b\x77\x10\x49\x8b\x57\x18",  # rdi, rsi, rdx
        b"\x4d\x8b\x57\x20\x4d\x8b\x47\x28\x4d\x8b\x4f\x30",  # r10, r8, r9
        b"\x0f\x05",  # syscall
        "store", b"\x49\x89\x47\x38",  # mov [r15+56],rax
        "next", b"\x49\x83\xc7\x40", (0xEB, "loop"),  # add r15,64
        "special", b"\x48\xff\xc0", (0x74, "copy"), b"\x48\xff\xc0", (0x74, "unless"),  # inc rax; jz
        b"\x48\xff\xc0", (0x74, "int80"), b"\x48\xff\xc0", (0x74, "again"),
        b"\xb8" + struct.pack("<I", CALLS["clone"]) + b"\xbf" + struct.pack("<I", _THREAD_FLAGS),  # mov eax; mov edi
        b"\x31\xf6\x31\xd2\x4d\x31\xd2\x4d\x31\xc0\x0f\x05",  # xor esi,esi; edx; r10; r8; syscall
        b"\x48\x85\xc0", (0x75, "store"),  # test rax,rax; jnz; here is the thread, which uses no stack:
        b"\xbf" + struct.pack("<I", _SLEEP) + b"\x31\xf6\xb8" + struct.pack("<I", CALLS["nanosleep"]) + b"\x0f\x05",
        b"\xb8" + struct.pack("<I", _EXIT) + b"\x31\xff\x0f\x05",  # exit(0)
        "again", b"\x49\xff\x4f\x10", (0x74, "next"),  # dec qword [r15+16]; jz
        b"\x4d\x8b\x7f\x08", (0xEB, "loop"),  # mov r15,[r15+8]
        "int80",
        b"\x41\x8b\x47\x08\x41\x8b\x5f\x10\x41\x8b\x4f\x18",  # eax, ebx, ecx
        b"\x41\x8b\x57\x20\x41\x8b\x77\x28\x41\x8b\x7f\x30",  # edx, esi, edi
        b"\xcd\x80\x48\x63\xc0", (0xEB, "store"),  # int 0x80; movsxd rax,eax
        "copy", b"\x49\x8b\x47\x08\x48\x8b\x00\x49\x8b\x4f\x10\x48\x89\x01", (0xEB, "next"),  # [[r15+16]] = [[r15+8]]
        "unless", b"\x49\x8b\x47\x08\x48\x83\x38\x00", (0x74, "next"),  # cmp qword [[r15+8]],0
        b"\x4d\x8b\x7f\x10", (0xEB, "loop"),  # mov r15,[r15+16]
    ]  # fmt: skip
    places: dict[str, int] = {}
    at = 0
    for part in parts:
        if isinstance(part, str):
            places[part] = at
        else:
            at += len(part) if isinstance(part, bytes) else _jump_size(part[0])
    code = bytearray()
    for part in parts:
        if isinstance(part, tuple):
            opcode, target = part
            code += bytes([0xE9] if opcode == 0xEB else [0x0F, opcode + 0x10])  # the forms that reach far
            code += struct.pack("<i", places[target] - len(code) - 4)
        elif isinstance(part, bytes):
            code += part
    return bytes(code)


def _jump_size(opcode: int) -> int:
    return 5 if opcode == 0xEB else 6
