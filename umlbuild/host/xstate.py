"""`lib/xstate.so`, which dynamic kernels are started with (LD_PRELOAD): without it they panic on hosts with AMX.

What it does and why is on top of its source, `launcher/xstate.c`. It is put where the other libraries are, so a static
kernel has none; those (from 7.0 on) ask the processor how much there is to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umlbuild.host import elf, process
from umlbuild.host.libraries import DIRECTORY

NAME = "xstate.so"
GCC = ("gcc", "-O2", "-fPIC", "-fno-stack-protector", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none", "-Wl,-s")


def put_beside(program: Path, text: str, compiler: Sequence[str], *, work: Path, log: Path | None) -> None:
    """Compile it, in `work`, into `lib/` beside a dynamic program; nothing for a static one. Raises: ToolFailed."""
    directory = program.parent / DIRECTORY
    if not directory.is_dir():
        return
    (work / "xstate.c").write_text(text)
    process.run([*compiler, "-shared", "-nostdlib", "-o", NAME, "xstate.c"], cwd=work, log=log, timeout_s=60)
    (directory / NAME).write_bytes(elf.with_plain_stack((work / NAME).read_bytes()))
    (directory / NAME).chmod(0o644)
