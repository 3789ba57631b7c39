"""What the machine must have for each stage: programs, the Debian packages that bring them, and room.

Everything that is missing is said at once, before any work, with the one line that mends it; or it is
installed, when the caller allows that (UMLBUILD_MAY_INSTALL=1, as `./doit` does) and we may (root, or
`sudo -n`). Never asks for a password, never installs what a stage does not use.

Source: packages of bookworm (dpkg -S); the kernel's needs from Documentation/process/changes.rst, as far
as ARCH=um uses them (no libelf: objtool is not built; no openssl: nothing is signed); disk figures from
measured builds (7.3: 1.5 GB of sources).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from umlbuild.errors import HostError, ToolFailed
from umlbuild.host import process
from umlbuild.specs.model import Spec
from umlbuild.specs.rootfs import RootfsSpec

MAY_INSTALL = "UMLBUILD_MAY_INSTALL"

PACKAGES = {
    "/usr/include/stdio.h": "libc6-dev",  # only recommended by gcc
    "apt-get": "apt",
    "bc": "bc",
    "bison": "bison",
    "bwrap": "bubblewrap",
    "ccache": "ccache",
    "debootstrap": "debootstrap",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "flex": "flex",
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "patch": "patch",
    "perl": "perl-base",
    "setarch": "util-linux",
    "setpriv": "util-linux",
    "shellcheck": "shellcheck",
    "slirp4netns": "slirp4netns",
    "strace": "strace",
    "strip": "binutils",
    "tar": "tar",
    "uml_mconsole": "uml-utilities",
    "unshare": "util-linux",
    "xz": "xz-utils",
    "zstd": "zstd",
}
"""Program (or file, by its absolute path) → the Debian package that brings it."""

STAGES: dict[str, tuple[str, ...]] = {
    "packages": (),
    "tools": ("dpkg-deb",),
    "prebuilt_kernel": ("dpkg-deb", "depmod"),
    "kernel_source": ("dpkg-deb", "tar", "xz", "patch"),
    "kernel_config": ("make", "gcc", "ld", "flex", "bison", "/usr/include/stdio.h"),
    "kernel": (
        "make", "gcc", "ld", "strip", "flex", "bison", "bc", "perl", "depmod", "/usr/include/stdio.h",
    ),
    "rootfs": ("dpkg-deb", "tar", "unshare"),
    "configure": ("tar", "unshare"),
    "image": (),
    "bundle": (),
}  # fmt: skip
"""Stage → programs; a spec may add to them, see `programs_of`."""

TESTS = ("shellcheck", "strace", "uml_mconsole", "debootstrap", "mmdebstrap", "newuidmap", "bwrap", "ccache",
         "slirp4netns", "zstd", *STAGES["kernel"], *STAGES["kernel_source"])  # fmt: skip
"""What the project's own tests use when it is there."""

_ROOM_MB = {
    "packages": 100, "tools": 30, "kernel_source": 1600, "kernel": 400, "prebuilt_kernel": 100,
    "rootfs": 500, "configure": 300, "image": 300, "bundle": 10,
}  # fmt: skip
"""Stage → megabytes that it takes in the cache, scratch included (a small system)."""

_INSTALL_S = 1200.0
Note = Callable[[str], None]


def programs_of(spec: Spec) -> tuple[str, ...]:
    """The programs (or files) that the stage of a spec needs on this machine."""
    programs = ("setpriv", *STAGES.get(spec.STAGE, ()))  # `process` starts everything through setpriv
    if isinstance(spec, RootfsSpec) and spec.bootstrap in PACKAGES:
        programs += (spec.bootstrap,)
    if spec.STAGE in ("rootfs", "configure") and os.geteuid() != 0:
        programs += ("newuidmap",)
    return programs


def missing(programs: Iterable[str]) -> list[str]:
    """The Debian packages that bring what is not there, sorted; [] if nothing is missing."""
    gone = [program for program in programs if not _is_there(program)]
    return sorted({PACKAGES.get(program, program) for program in gone})


def require_for(specs: Iterable[Spec], cache: Path, note: Note) -> bool:
    """See that this machine can do all these steps; True if something was installed for it.

    Raises: HostError that names everything that is missing.
    """
    specs = list(specs)
    _require_room([spec.STAGE for spec in specs], cache)
    return require([program for spec in specs for program in programs_of(spec)], note)


def require(programs: Iterable[str], note: Note) -> bool:
    """See that all these programs are there; True if some were installed for that. Raises: HostError."""
    programs = list(dict.fromkeys(programs))
    packages = missing(programs)
    if not packages:
        return False
    if may_install():
        install(packages, note)
        packages = missing(programs)
    if packages:
        names = ", ".join(sorted({Path(name).name for name in programs if not _is_there(name)}))
        raise HostError(f"this machine lacks {names}", f"sudo apt-get install {' '.join(packages)}")
    return True


def may_install() -> bool:
    """Whether packages may be installed: the caller allows it, and apt would let us without a password."""
    if os.environ.get(MAY_INSTALL) != "1" or process.find("apt-get") is None:
        return False
    if os.geteuid() == 0:
        return True
    if process.find("sudo") is None:
        return False
    return process.run(["sudo", "-n", "true"], log=None, timeout_s=20, ok=range(256)) == 0


def install(packages: Iterable[str], note: Note) -> None:
    """Install Debian packages, without their recommendations. Raises: HostError with apt's last lines."""
    names = sorted(packages)
    note(f"installing Debian packages: {' '.join(names)}")
    with tempfile.TemporaryDirectory(prefix="umlbuild-apt.") as scratch:
        log = Path(scratch, "apt.log")
        try:
            try:
                _apt(["install", *names], log)
            except ToolFailed:  # no package lists yet, or old ones
                _apt(["update"], log)
                _apt(["install", *names], log)
        except ToolFailed as error:
            tail = "\n".join(f"  | {line}" for line in error.tail[-8:])
            raise HostError(
                f"installing {' '.join(names)}: apt-get failed: {error.cause}\n{tail}",
                f"sudo apt-get update && sudo apt-get install {' '.join(names)}",
            ) from error


def install_what_tests_use(note: Note) -> list[str]:
    """Install what the tests use, as far as we may; returns the packages that are still missing."""
    packages = missing(TESTS)
    if packages and may_install():
        try:
            install(packages, note)
        except HostError as error:  # the tests that need them say so
            note(str(error))
        packages = missing(TESTS)
    return packages


def _apt(words: list[str], log: Path) -> None:
    command, *rest = words
    argv = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    argv += ["--no-install-recommends", command, *rest]
    argv = ["env", "DEBIAN_FRONTEND=noninteractive", *argv]
    if os.geteuid() != 0:
        argv = ["sudo", "-n", *argv]
    process.run(argv, log=log, timeout_s=_INSTALL_S)


def _is_there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else process.find(program) is not None


def _require_room(stages: Iterable[str], cache: Path) -> None:
    needed_mb = sum(_ROOM_MB.get(stage, 0) for stage in stages)
    place = cache
    while not place.exists():
        place = place.parent
    free_mb = shutil.disk_usage(place).free // 1_000_000
    if free_mb < needed_mb:
        raise HostError(
            f"{cache}: {free_mb} MB are free, but these steps need about {needed_mb} MB",
            "make room there, or set UMLBUILD_CACHE to a directory with more",
        )
