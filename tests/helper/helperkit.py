"""What the tests of the helper share: compiling it by its stage, running it, looking at what it leaves."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from umlbuild.plan.helper import FLAGS, sources
from umlbuild.specs.helper import HelperSpec
from umlbuild.stages import helper
from umlbuild.stages.context import Context

FAILED, TOO_OLD = 125, 121
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
"""A filter of system calls, or of packets, that lets everything through."""
PROGRAMS = ("--rx", "/bin", "--rx", "/usr", "--rx", "/lib", "--rx", "/lib64", "--rw", "/dev/null", "--ro", "/proc")
"""Rules with which the host's own programs run."""


def compiled(where: Path, flags: Sequence[str] = FLAGS) -> Path:
    """The program, made by its stage in `where`."""
    (where / "work").mkdir()
    (where / "out").mkdir()
    spec = HelperSpec(sources=sources(), flags=tuple(flags))
    helper.run(spec, {}, where / "out", Context(work=where / "work", log=where / "log"))
    return where / "out" / helper.NAME


def run(
    *argv: str | Path, timeout_s: float = 20, pass_fds: Sequence[int] = ()
) -> subprocess.CompletedProcess[str]:
    """A whole life of the helper; its stdout is read to the end, so nothing that holds it may be left."""
    return subprocess.run(
        [str(word) for word in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s,
        check=False, pass_fds=pass_fds,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str], *words: str, status: int = FAILED) -> None:
    """It said so in one line, and started nothing."""
    assert (done.returncode, done.stdout) == (status, ""), done
    assert done.stderr.startswith("jail: ") and done.stderr.count("\n") == 1, done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr


def until(condition: Callable[[], bool], timeout_s: float = 5) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def with_word(word: str) -> list[int]:
    """The processes that have this word in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if word.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
