"""Attempts to use up the host: processes, the log, memory, disk, descriptors; and to leave core files. Data only.

All are bounded: what gets through takes a little more than was promised, for a moment.

Source: setrlimit(2), core(5), memfd_create(2); what is promised is in docs/security.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from umlbuild.attack.attempt import (
    Attempt,
    Body,
    ByCode,
    ByGuest,
    Evidence,
    Judge,
    Measure,
    Scene,
    any_of,
    makes,
    measures,
    reaches,
    succeeds,
)
from umlbuild.attack.program import AT_FDCWD, O_CREAT, O_RDWR, Program, Ref
from umlbuild.errors import UserError
from umlbuild.runtime import mconsole

_TOO_MANY = 200
"""Processes beyond what is allowed."""
_HELPERS = 24
"""Of the launcher and of the sandbox, which are not the guest's."""
_BLOCK = 16 << 20
_BLOCKS = 6
_DESCRIPTORS = 4096
_FAR = 1 << 40
_RLIMIT_FSIZE, _RLIMIT_CORE, _RLIMIT_NOFILE = 1, 4, 7
_SIGXFSZ, _SIG_IGN = 25, 1
_MAP = 0x8022
"""MAP_PRIVATE, MAP_ANONYMOUS, MAP_POPULATE."""


# --- measured on the host -------------------------------------------------------------------------------------


def tasks_of(home: str) -> int:
    """Processes and threads of a machine: each has its private directory as its working directory."""
    return sum(_tasks(home))


def _tasks(home: str) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry.name}/cwd").startswith(home):
                    yield len(os.listdir(f"/proc/{entry.name}/task"))


def _processes(scene: Scene) -> str:
    count = tasks_of(scene.home)
    limit = scene.limits.processes
    return f"{count} processes and threads on the host" if limit is not None and count > limit + _HELPERS else ""


def _log(scene: Scene) -> str:
    log = scene.canaries.log
    size = log.stat().st_size if log.exists() else 0
    return f"the log has {size} bytes" if size > scene.limits.log_bytes + 4096 else ""


def _cow(scene: Scene) -> str:
    """The size that a COW file has from the beginning: header, bitmap, image."""
    image = os.stat(scene.image).st_size
    data = (8192 + (image + 4095) // 4096 + 4095) // 4096 * 4096
    with contextlib.suppress(OSError):
        size = os.stat(f"{scene.home}/root.cow").st_size
        return f"the COW file has {size} bytes" if size > data + image else ""
    return ""


def _asks_mconsole(scene: Scene) -> str:
    with contextlib.suppress(UserError, OSError):
        mconsole.ask(Path(scene.home) / "u" / "m" / "mconsole", "\nmconsole-link\n", 0.2)
    return ""


# --- by code in UML's process -----------------------------------------------------------------------------------


def _many(scene: Scene) -> int:
    assert scene.limits.processes is not None
    return scene.limits.processes + _TOO_MANY


def _fork_bomb(scene: Scene, program: Program) -> None:
    with program.repeat(_many(scene)):
        program.child()
        program.end_child()
    program.sleep(2)


def _threads(scene: Scene, program: Program) -> None:
    with program.repeat(_many(scene)):
        program.thread()
    program.sleep(2)


def _floods(scene: Scene, program: Program) -> None:
    """It says first that it is up: the launcher's watch would hold the log open until its time is over."""
    program.call("mkdir", f"{scene.home}/u/m", 0o700)
    program.put(f"{scene.home}/u/m/pid", b"1\n")
    line = b"flood" * 800 + b"\n"
    with program.repeat(1500):
        program.write(line, 2)


def _fills_place(scene: Scene, program: Program) -> None:
    path = f"/dev/shm/{scene.canaries.token}-fill"
    _fills(program, program.call("openat", AT_FDCWD, path, O_RDWR | O_CREAT, 0o600))
    program.sleep(1)


def _fills_memfds(_scene: Scene, program: Program) -> None:
    for number in range(_BLOCKS):
        fd = program.call("memfd_create", "fill", 0)
        program.call("fallocate", fd, 0, 0, _BLOCK, label=f"block-{number}")


def _fills(program: Program, fd: Ref) -> None:
    for number in range(_BLOCKS):
        program.call("fallocate", fd, 0, number * _BLOCK, _BLOCK, label=f"block-{number}")


def _maps(_scene: Scene, program: Program) -> None:
    for number in range(_BLOCKS):
        program.call("mmap", 0, _BLOCK, 3, _MAP, -1, 0, label=f"block-{number}")


def _takes_too_much(scene: Scene, evidence: Evidence) -> str:
    """More than the place of the machine's memory."""
    got = _BLOCK * sum((evidence.results or {}).get(f"block-{number}", -1) >= 0 for number in range(_BLOCKS))
    allowed = scene.limits.place_bytes
    return f"it got {got >> 20} MiB, {allowed >> 20} are its own" if got > allowed else ""


def _grows(scene: Scene, program: Program) -> None:
    """A write beyond the limit is a signal first; 0x04000000 is SA_RESTORER, which x86-64 wants."""
    program.call("rt_sigaction", _SIGXFSZ, struct.pack("<QQQQ", _SIG_IGN, 0x04000000, 0, 0), 0, 8)
    files = {"cow": f"{scene.home}/root.cow", "disk": f"{scene.home}/disk1", "place": "/dev/shm/grow",
             "box": f"{scene.home}/box/grow"}  # fmt: skip
    if "writable share" in scene.needs:
        files["share"] = f"{scene.writable_share}/{scene.canaries.token}-grow"
    for label, path in files.items():
        is_new = label not in ("cow", "disk")
        fd = program.call("openat", AT_FDCWD, path, O_RDWR | (O_CREAT if is_new else 0), 0o600)
        program.call("ftruncate", fd, _FAR, label=label)
        if is_new:  # without a jail it would stay on the host
            program.call("unlink", path)


def _descriptors(_scene: Scene, program: Program) -> None:
    with program.repeat(_DESCRIPTORS + 100):
        program.call("dup", 0, label="dup")


def _too_many_descriptors(_scene: Scene, evidence: Evidence) -> str:
    got = (evidence.results or {}).get("dup", -1)
    return f"it has descriptor {got}" if got >= _DESCRIPTORS else ""


def _raises_limits(_scene: Scene, program: Program) -> None:
    for label, number in (("size", _RLIMIT_FSIZE), ("core", _RLIMIT_CORE), ("descriptors", _RLIMIT_NOFILE)):
        program.call("prlimit64", 0, number, struct.pack("<qq", 1 << 40, 1 << 40), 0, label=label)


def _crashes(scene: Scene, program: Program) -> None:
    places = ["/dev/shm", scene.home, *([scene.writable_share] if "writable share" in scene.needs else [])]
    program.call("prlimit64", 0, _RLIMIT_CORE, struct.pack("<qq", 1 << 40, 1 << 40), 0)
    for place in places:
        for number in (6, 11):
            pid = program.child()
            program.call("chdir", place)
            program.call("kill", program.call("getpid"), number)
            program.end_child()
            status = program.buffer(4)
            program.call("wait4", pid, status, 0, 0)
            program.write(b"status:")
            program.call("write", 1, status, 4)


def _dumps_core(scene: Scene, evidence: Evidence) -> str:
    """The kernel says so in a process's status (WCOREDUMP), and there would be a file."""
    statuses = [struct.unpack("<I", found)[0] for found in re.findall(rb"(?s)status:(.{4})", evidence.output)]
    files = [path for share in scene.canaries.shares.values() for path in share.glob("core*")]
    if any(status & 0x80 for status in statuses) or files:
        return "a core file was written"
    return "" if statuses else "nothing crashed"


def _plants_mconsole(scene: Scene, program: Program) -> None:
    where = f"{scene.home}/u/m"
    program.call("mkdir", where, 0o700)
    program.call("symlink", str(scene.canaries.datagram), f"{where}/mconsole")
    program.put(f"{where}/pid", b"1\n")
    program.sleep(2)


def _code(
    name: str, tries: str, judge: Judge, body: Body, *, measure: Measure | None = None, options: tuple[str, ...] = (),
    alone: bool = True, weak: bool = False,
) -> Attempt:  # fmt: skip
    return ByCode(f"code-{name}", "exhaustion", tries, judge, program=body, measure=measure, options=options,
                  alone=alone, weak=weak)  # fmt: skip


_SMALL = ("--memory", "32M")

# --- by guest root ------------------------------------------------------------------------------------------------


def _guest_bomb(scene: Scene) -> str:
    """Subshells without a program of their own, which wait for a while."""
    return (
        "mkfifo /var/tmp/bomb || exit; exec 9<>/var/tmp/bomb; i=0\n"
        f"while [ $i -lt {_many(scene)} ]; do (read -r _ <&9) & i=$((i+1)); done; sleep 1"
    )


_END = (
    "read -r size </sys/block/ubda/size\n"
    "for at in $((size - 8)) $((size)) $((size + 8192)) $((size * 2)); do\n"
    "dd if=/dev/zero of=/dev/ubda bs=512 seek=$at count=64 conv=notrunc,fsync; done; sync"
)

EXHAUST: tuple[Attempt, ...] = (
    ByCode("code-fork-bomb", "exhaustion", "more processes than it may be", measures, ("limit of processes",),
           program=_fork_bomb, measure=_processes, alone=True),
    ByCode("code-threads", "exhaustion", "more threads than it may be", measures, ("limit of processes",),
           program=_threads, measure=_processes, alone=True),
    _code("flood", "fill the disk by the log of its kernel", measures, _floods, measure=_log,
          options=("--log", "@LOG@")),
    _code("fill-place", "fill the host's /dev/shm", any_of(_takes_too_much, makes("fill")), _fills_place,
          options=_SMALL),
    _code("memfd", "take memory by memfd, as much as the host has", _takes_too_much, _fills_memfds, options=_SMALL,
          weak=True),
    _code("memory", "take memory of its own, as much as the host has", _takes_too_much, _maps, options=_SMALL,
          weak=True),
    _code("grow", "grow its disks and files beyond their limit", succeeds("cow", "disk", "place", "box", "share"),
          _grows, alone=False),
    _code("descriptors", "more open files than it may have", _too_many_descriptors, _descriptors, alone=False),
    _code("raise-limits", "raise its own limits", succeeds("size", "core", "descriptors"), _raises_limits,
          alone=False),
    ByCode("code-core", "exhaustion", "crash, and leave core files", _dumps_core,
           ("core files of its own (core_pattern is a pipe)",), program=_crashes),
    ByCode("code-mconsole-link", "sockets", "lead the host's mconsole client to a host's socket by a link",
           reaches("mconsole-link"), program=_plants_mconsole, measure=_asks_mconsole, alone=True),
    ByGuest("fork-bomb", "exhaustion", "more processes than it may be", measures, ("limit of processes",),
            script=_guest_bomb, measure=_processes, alone=True),
    ByGuest("flood", "exhaustion", "print for ever", measures, measure=_log, alone=True, options=("--log", "@LOG@"),
            script=lambda _scene: "timeout 15 dd if=/dev/zero of=/dev/console bs=16384 count=192"),
    ByGuest("disk-end", "exhaustion", "write beyond the end of its disk", measures, ("writable root",),
            measure=_cow, alone=True, script=lambda _scene: _END),
)  # fmt: skip
