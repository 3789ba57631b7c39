"""Programs out of a tools entry: run through the tree's own loader and C library, never the host's.

So the bytes that they write depend on pinned packages only, and a program of a newer Debian runs on an
older one. Nothing is installed and nothing of the host's libraries is loaded.

Source: ld.so(8) (--library-path, --argv0, --preload); tried with mke2fs, mksquashfs, mkfs.erofs,
mkfs.btrfs, mkfs.xfs of trixie on bookworm. Does not work for UML itself (it re-executes itself).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umlbuild.errors import StepFailed

TREE = "tree"
_DIRECTORIES = ("usr/sbin", "usr/bin")


def program_path(tree: Path, program: str) -> Path:
    """Where a program is in the tree. Raises: StepFailed if it is not."""
    for directory in _DIRECTORIES:
        path = tree / directory / program
        if path.is_file():
            return path
    raise StepFailed(f"{program}: not among the programs of the tools packages")


def library_path(tree: Path, library: str) -> Path:
    """Where a shared library (e.g. `faketime/libfaketime.so.1`) is. Raises: StepFailed if it is not."""
    for directory in sorted((tree / "usr/lib").glob("*-linux-gnu*")):
        if (directory / library).is_file():
            return directory / library
    raise StepFailed(f"{library}: not among the libraries of the tools packages")


def tool_argv(entry: Path, program: str, *, preload: Sequence[str] = ()) -> list[str]:
    """The words that start a program of a tools entry; its arguments follow them.

    Raises: StepFailed if the entry lacks the program, a library to preload, or a loader.
    """
    tree = entry / TREE
    loaders = sorted((tree / "usr/lib64").glob("ld-linux-*.so.*"))
    if not loaders:
        raise StepFailed(f"{program}: the tools packages have no C library (libc6)")
    first = [library_path(tree, library) for library in preload]
    directories = [*sorted((tree / "usr/lib").glob("*-linux-gnu*")), *(path.parent for path in first)]
    libraries = ":".join(dict.fromkeys(map(str, directories)))
    argv = [str(loaders[0]), "--inhibit-cache", "--library-path", libraries]
    if first:  # by name: blanks part the words, also those in a path
        argv += ["--preload", " ".join(path.name for path in first)]
    return [*argv, "--argv0", program, str(program_path(tree, program))]


def complaint(program: str, log: Path, since: int) -> str:
    """The first thing that a program whose status tells nothing (debugfs) has to say against its work, "" if nothing.

    `since` is where its part of the log begins: the words that started it, what it is called and its version.
    """
    with log.open("rb") as file:
        file.seek(since)
        said = file.read().decode(errors="replace").splitlines()
    return next((line for line in said if not line.startswith(("+ ", f"{program} "))), "")
