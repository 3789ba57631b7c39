"""Tools: unpack pinned .deb files into one tree to run programs from. No root, nothing is configured.

Only what programs need at run time is kept; documentation, locales, scripting languages are not.
usr-merge: `bin`, `sbin`, `lib`, `lib64` are links from the start and tar keeps them (`dpkg-deb -x`
would replace them by directories; Source: lab-notes, "Root file system and image").
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from umlbuild.errors import StepFailed
from umlbuild.host import tooltree
from umlbuild.specs.tools import ToolsSpec
from umlbuild.stages.context import Context

_MERGED = ("bin", "sbin", "lib", "lib64")
_LEFT_OUT = (
    "./etc", "./var", "./usr/share", "./usr/include", "./usr/lib/python3*", "./usr/lib/systemd",
    "./usr/lib/udev", "./lib/systemd", "./lib/udev", "./usr/lib/*/gconv", "./usr/lib/locale",
)  # fmt: skip
_LIST_S = 20


def run(spec: ToolsSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out/tree`. Raises: ToolFailed (a damaged package), StepFailed (a program is missing)."""
    tree = out / tooltree.TREE
    for name in _MERGED:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    packages = sorted((inputs["packages"] / "pool").glob("*.deb"))
    if not packages:
        raise StepFailed("unpacking the tools: there are no packages")
    for number, package in enumerate(packages, start=1):
        context.note(f"{number} of {len(packages)} packages")
        context.pipeline(
            [
                ["dpkg-deb", "--fsys-tarfile", str(package)],
                [
                    "tar", "-x", "-C", str(tree), "--keep-directory-symlink", "--no-same-owner",
                    *(f"--exclude={pattern}" for pattern in _LEFT_OUT), "-f", "-",
                ],
            ],
            timeout_s=300,
        )  # fmt: skip
    _plain_modes(tree)
    for program in spec.programs:
        _check_libraries(out, program, context)
    for library in spec.libraries:
        tooltree.library_path(tree, library)


def _check_libraries(entry: Path, program: str, context: Context) -> None:
    """Every library of a program must be the tree's: the loader falls back to the host's in silence."""
    argv = tooltree.tool_argv(entry, program)
    listing = context.work / f"{program}.libraries"
    context.run([*argv[: argv.index("--argv0")], "--list", argv[-1]], stdout=listing, timeout_s=_LIST_S)
    for line in listing.read_text().splitlines():
        name, _, found = line.strip().partition(" => ")
        if found and not found.startswith(f"{entry / tooltree.TREE}/"):
            raise StepFailed(f"{program}: {name} is not among the tools packages (found {found.split()[0]})")


def _plain_modes(tree: Path) -> None:
    """Modes without setuid bits and without a trace of the umask."""
    for root, directories, files in os.walk(tree):
        for name in directories:
            if not os.path.islink(os.path.join(root, name)):
                os.chmod(os.path.join(root, name), 0o755)
        for name in files:
            path = os.path.join(root, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                os.chmod(path, 0o755 if mode & 0o100 else 0o644)
