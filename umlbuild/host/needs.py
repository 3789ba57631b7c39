"""What the machine must have for each stage: programs, the Debian packages that bring them, a fit cache directory,
and a way to make files of any owner.

Everything that is missing is said at once, before any work, with the one line that mends it; or it is
installed, when the caller allows that (UMLBUILD_MAY_INSTALL=1, as `./doit` does) and we may (root, or
`sudo -n`). Never asks for a password, never installs what a stage does not use.

Source: packages of bookworm (dpkg -S); the kernel's needs from Documentation/process/changes.rst, as far
as ARCH=um uses them (no libelf: objtool is not built; no openssl: nothing is signed).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from umlbuild.errors import HostError, ToolFailed
from umlbuild.host import offline, place, process, rootless
from umlbuild.host.debian import release_of_host
from umlbuild.specs.bundle import BundleSpec
from umlbuild.specs.filters import FiltersSpec
from umlbuild.specs.model import Spec
from umlbuild.specs.rootfs import ConfigureSpec, RootfsSpec

MAY_INSTALL = "UMLBUILD_MAY_INSTALL"

PACKAGES = {
    "/usr/include/stdio.h": "libc6-dev",  # only recommended by gcc
    "apt-get": "apt",
    "bc": "bc",
    "bison": "bison",
    "busybox": "busybox",
    "bwrap": "bubblewrap",
    "ccache": "ccache",
    "debootstrap": "debootstrap",
    "depmod": "kmod",
    "distcc": "distcc",
    "dpkg-deb": "dpkg",
    "ethtool": "ethtool",
    "fakechroot": "fakechroot",
    "fakeroot": "fakeroot",
    "flex": "flex",
    "gcc": "gcc",
    "ip": "iproute2",
    "ld": "binutils",
    "make": "make",
    "minisign": "minisign",
    "mmdebstrap": "mmdebstrap",
    "newgidmap": "uidmap",
    "newuidmap": "uidmap",
    "patch": "patch",
    "perl": "perl-base",
    "setarch": "util-linux",
    "setpriv": "util-linux",
    "shellcheck": "shellcheck",
    "slirp4netns": "slirp4netns",
    "ssh-keygen": "openssh-client",
    "strace": "strace",
    "strip": "binutils",
    "tar": "tar",
    "tc": "iproute2",
    "tcpdump": "tcpdump",
    "uml_mconsole": "uml-utilities",
    "unshare": "util-linux",
    "vde_plug": "vdeplug",
    "vde_switch": "vde2",
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
    "rootfs": ("dpkg-deb", "tar"),
    "configure": (),
    "image": (),
    "edited_image": (),
    "filters": (),
    "helper": ("gcc", "ld", "strip", "/usr/include/stdio.h"),
    "bundle": (),
}  # fmt: skip
"""Stage → programs; a spec may add to them, see `programs_of`."""

TESTS = ("shellcheck", "strace", "uml_mconsole", "debootstrap", "mmdebstrap", "newuidmap", "bwrap", "ccache", "distcc",
         "busybox", "fakechroot", "fakeroot", "slirp4netns", "tc", "tcpdump", "zstd", "ip",
         "ethtool", "vde_plug", "vde_switch", "minisign", *STAGES["kernel"], *STAGES["kernel_source"])  # fmt: skip
"""What the project's own tests use when it is there."""

_INSTALL_S = 1200.0
Note = Callable[[str], None]


def programs_of(spec: Spec) -> tuple[str, ...]:
    """The programs (or files) that the stage of a spec needs on this machine, the way that this user goes."""
    programs = ("setpriv", *STAGES.get(spec.STAGE, ()))  # `process` starts everything through setpriv
    if isinstance(spec, RootfsSpec) and spec.bootstrap in PACKAGES:
        programs += (spec.bootstrap,)
    if isinstance(spec, FiltersSpec) and any(item.is_compiled for item in spec.filters):
        programs += ("tcpdump",)  # not for the step, which has its own: recipes are checked with it before any work
    if isinstance(spec, ConfigureSpec) and spec.scripts:
        programs += ("tar", "bwrap")
    if isinstance(spec, BundleSpec):  # not for the step: its machine runs with them
        programs += spec.runs_with
    if not _makes_owners(spec):
        return programs
    if rootless.obstacle() is not None:
        return (*programs, *(rootless.PROGRAMS["fakeroot"] if _can_pretend(spec) else _of_better_way()))
    return (*programs, *_of_better_way())


def _of_better_way() -> tuple[str, ...]:
    return rootless.PROGRAMS["root" if os.geteuid() == 0 else "subids"]


def _makes_owners(spec: Spec) -> bool:
    """Whether a step runs programs as (some) root over files of many owners; archives are edited by anybody."""
    if isinstance(spec, RootfsSpec):
        return spec.method.makes != "unpacked"
    return isinstance(spec, ConfigureSpec) and bool(spec.scripts)


def _can_pretend(spec: Spec) -> bool:
    """Whether fakechroot is enough: it loads the host's C library into the root, so both must be of one release."""
    return isinstance(spec, RootfsSpec) and spec.method.fake_argv is not None and spec.suite == release_of_host()


def missing(programs: Iterable[str]) -> list[str]:
    """The Debian packages that bring what is not there, sorted; [] if nothing is missing."""
    gone = [program for program in programs if not _is_there(program)]
    return sorted({PACKAGES.get(program, program) for program in gone})


def require_for(specs: Iterable[Spec], cache: Path, note: Note) -> bool:
    """See that this machine can do all these steps; True if something was installed for it.

    Raises: HostError that names everything that is missing.
    """
    specs = list(specs)
    programs = [program for spec in specs for program in programs_of(spec)]
    need_owners = any(_makes_owners(spec) and not _can_pretend(spec) for spec in specs)
    problems = list(place.problems(cache, [spec.STAGE for spec in specs]))
    if need_owners and (obstacle := rootless.obstacle()):
        problems.append(obstacle)
    if problems:  # no package mends those: install nothing
        packages = missing(programs)
        raise _together([*([_lack_of(programs, packages)] if packages else []), *problems])
    installed = require(programs, note)
    if installed:
        rootless.owners.cache_clear()
    if need_owners and (obstacle := rootless.owners().missing):
        raise obstacle
    return installed


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
        raise _lack_of(programs, packages)
    return True


def may_install() -> bool:
    """Whether packages may be installed: the caller allows it (and a network), and apt needs no password of us."""
    if os.environ.get(MAY_INSTALL) != "1" or offline.is_offline() or process.find("apt-get") is None:
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


def _lack_of(programs: Iterable[str], packages: Iterable[str]) -> HostError:
    names = ", ".join(sorted({Path(name).name for name in programs if not _is_there(name)}))
    return HostError(f"this machine lacks {names}", f"sudo apt-get install {' '.join(packages)}")


def _together(problems: Sequence[HostError]) -> HostError:
    """One error that says them all; its hint can be pasted as far as the fixes are commands."""
    if len(problems) == 1:
        return problems[0]
    hints = [problem.hint for problem in problems]
    commands = " && ".join(hint for hint in hints if hint.startswith("sudo "))
    others = [hint for hint in hints if not hint.startswith("sudo ")]
    return HostError("\n".join(problem.message for problem in problems), "; ".join(filter(None, [commands, *others])))
