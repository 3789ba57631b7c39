"""The shared libraries of a dynamic kernel, put beside it: a bundle runs on hosts with another C library.

Layout of the result: `lib/<name>`, plain files without links, and `interpreter`, one line: the path at which
`linux` expects its loader. A static kernel has neither. The libraries are only copied, never loaded, but for
`loader_argv`, which lets a kernel that is newer than this host say its version.

Source: ld.so(8); uml-facts: kernels from 7.x on load libgcc_s.so.1 when they end (pthread_cancel), which no
list of needed libraries shows. A kernel cannot be booted through its loader (it takes its memory's
place from the loader's), but it can print its version and configuration so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from umlbuild.errors import StepFailed
from umlbuild.host.elf import linkage_of

DIRECTORY = "lib"
INTERPRETER = "interpreter"
LOADED_LATER = ("libgcc_s.so.1",)

Find = Callable[[str], Path | None]
"""Name of a library → where it is, None if it is not there."""


def put_beside(program: Path, find: Find) -> None:
    """Fill the program's own directory with `lib/` and `interpreter`; with nothing if it is static.

    Raises: StepFailed that names a library which cannot be found.
    """
    linkage = linkage_of(program)
    if linkage.interpreter is None:
        return
    directory = program.parent / DIRECTORY
    directory.mkdir()
    loader = Path(linkage.interpreter).name
    todo = [loader, *linkage.needed, *LOADED_LATER]
    while todo:
        name = todo.pop()
        copy = directory / name
        if copy.exists():
            continue
        found = find(name)
        if found is None:
            raise StepFailed(f"putting the C library beside the kernel: {name} is not there")
        shutil.copyfile(found, copy)
        copy.chmod(0o755 if name == loader else 0o644)
        todo += linkage_of(copy).needed
    (program.parent / INTERPRETER).write_text(f"{linkage.interpreter}\n")


def loader_argv(program: Path) -> list[str]:
    """The words that start a program with the libraries beside it; just the program if it is static."""
    recorded = program.parent / INTERPRETER
    if not recorded.exists():
        return [str(program)]
    directory = program.parent / DIRECTORY
    loader = directory / Path(recorded.read_text().strip()).name
    return [str(loader), "--inhibit-cache", "--library-path", str(directory), str(program)]
