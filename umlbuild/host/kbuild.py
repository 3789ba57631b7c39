"""The kernel's make, called so that its output depends on source, configuration and compiler only.

Never writes into the source tree (O= build). Where it is built, when, by whom and in which run never show:
the banner's fields are fixed, paths are mapped away, and tools that only leave their version number in
the configuration (rustc, pahole) are hidden from kernels that do not use them.

Source: Documentation/kbuild/reproducible-builds.rst; measured: with these flags two builds in different
directories, on different days and hosts are byte-identical, unstripped and stripped.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umlbuild.errors import HostError, StepFailed, ToolFailed
from umlbuild.host import distcc, process

PROGRAMS: Mapping[str, str] = {
    "gcc": "gcc", "make": "make", "ld": "binutils", "strip": "binutils", "flex": "flex", "bison": "bison",
    "bc": "bc", "xz": "xz-utils", "tar": "tar",
}  # fmt: skip
"""What building a kernel takes: program → Debian package."""

_REMOTE_CCACHE = ("CCACHE_REMOTE_STORAGE", "CCACHE_REMOTE_ONLY", "CCACHE_SECONDARY_STORAGE")
"""ccache's own shared storage, handed on: objects are looked up by compiler and input, so it changes no byte.
Source: ccache(1); the last is what versions before 4.7 call the first."""

_TIMEOUT_S = 6 * 3600
"""A defconfig kernel takes minutes; this only ends what hangs."""

_BANNER_TIME = time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(process.EPOCH))
"""As date(1) prints it: make copies the text verbatim into the banner."""

STATIC = ("LINK-y=-m64 -static",)
"""Variables of make that link `linux` statically, vector network devices or not: Kconfig's STATIC_LINK excludes
those because getaddrinfo of a static program needs the very C library that it was linked with, but only to look
up names, and UML is given addresses. Source: arch/um/Makefile; arch/um/drivers/Kconfig, MAY_HAVE_RUNTIME_DEPS.
"""

_STATIC_SINCE = (7, 0)
"""Measured: 7.3 linked so works; 6.1 links, but its first process dies. Those between were not tried."""

_ERROR = re.compile(
    r"\berror\b:|undefined reference|multiple definition|No rule to make|No space left|can't open file|"
    r"\*\*\* .*(clean|Stop)|cannot find -l|command not found",
    re.IGNORECASE,
)
_FOLLOWING = 3
_SHOWN = 20


@dataclass(frozen=True)
class Kbuild:
    """One kernel tree and the directory that its objects go to."""

    source: Path
    objects: Path
    log: Path
    cores: int = 1
    ccache: Path | None = None
    """ccache's directory; None: compile without it."""
    helpers: tuple[str, ...] = ()
    """distcc's machines, see `host.distcc`."""

    def __post_init__(self) -> None:
        missing = sorted({package for program, package in PROGRAMS.items() if process.find(program) is None})
        if missing:
            packages = " ".join(missing)
            raise HostError(f"building a kernel: {packages} is missing", f"apt-get install {packages}")
        for path in (self.source, self.objects):
            if re.search(r"[\s:]", os.fspath(path)):
                raise HostError(
                    f"building a kernel in {path}: make cannot work below a directory with a space or colon",
                    "set UMLBUILD_CACHE to a directory without them",
                )

    def make(self, *targets: str, extra: Sequence[str] = (), hide: bool = True) -> None:
        """Make targets; `hide` keeps rustc and pahole out of the configuration.

        Raises: ToolFailed with the compiler's own first errors.
        """
        argv = [
            "make", "-C", os.fspath(self.source), "ARCH=um", f"O={self.objects}", f"-j{self.cores}",
            *self._fixed(), *(self._hidden() if hide else ()), *self._compilers(), *extra, *targets,
        ]  # fmt: skip
        start = self.log.stat().st_size if self.log.exists() else 0
        try:
            process.run(argv, log=self.log, timeout_s=_TIMEOUT_S, env=self._environment())
        except ToolFailed as error:
            shown = first_errors(_text_from(self.log, start)) or error.tail
            raise ToolFailed(error.argv, error.cause, error.log, shown) from error

    def release(self) -> str:
        """What `uname -r` will say; the objects must have been made."""
        return (self.objects / "include/config/kernel.release").read_text().strip()

    def _fixed(self) -> list[str]:
        names = {self.source: "/usr/src/linux", self.objects: "/usr/src/build"}
        maps = " ".join(f"-ffile-prefix-map={path}={name}" for path, name in names.items())
        return [
            f"KBUILD_BUILD_TIMESTAMP={_BANNER_TIME}", "KBUILD_BUILD_USER=umlbuild",
            "KBUILD_BUILD_HOST=umlbuild", "KBUILD_BUILD_VERSION=1", "LOCALVERSION=",
            f"KCFLAGS={maps}", f"KAFLAGS={maps}",
        ]  # fmt: skip

    @staticmethod
    def _hidden() -> list[str]:
        return ["RUSTC=false", "BINDGEN=false", "PAHOLE=false"]

    def _compilers(self) -> list[str]:
        if self.ccache:  # which starts distcc for what it does not know
            return ["CC=ccache gcc", "HOSTCC=ccache gcc"]
        return ["CC=distcc gcc"] if self.helpers else []

    def _environment(self) -> dict[str, str]:
        env = {"LC_ALL": "C"}
        if self.helpers:
            directory = self.objects.with_name("distcc")
            directory.mkdir(exist_ok=True)
            env |= {**distcc.environment(self.helpers, directory), "CCACHE_PREFIX": "distcc"}
        if self.ccache:
            env["CCACHE_DIR"] = os.fspath(self.ccache)
            # The objects' directory has another name in each build; the prefix maps make it harmless.
            # CCACHE_BASEDIR must stay unset: it rewrites paths to relative ones, which the prefix maps do not
            # match, and a build with ccache would have other bytes than one without.
            env["CCACHE_NOHASHDIR"] = "1"
            for name in _REMOTE_CCACHE:
                if value := os.environ.get(name):
                    env[name] = value
        return env


def ccache_directory(work: Path) -> Path | None:
    """Where ccache keeps its objects: CCACHE_DIR, else `ccache/` of the cache that holds `work/<step>`.

    None without ccache. Not the user's own default: children see no home directory.
    """
    if process.find("ccache") is None:
        return None
    given = os.environ.get("CCACHE_DIR")
    directory = Path(given) if given else work.parent.parent / "ccache"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def source_tree(tree: str | None, sources: Mapping[str, Path], entry: Path | None) -> Path:
    """The tree to build: the user's own (by digest), or `linux/` of the kernel-source entry.

    Raises: StepFailed if it was built in place, which make refuses for O= builds.
    """
    if tree is None:
        assert entry is not None, "a kernel without a source"
        return (entry / "linux").resolve()
    if tree not in sources:
        raise StepFailed("the kernel source tree is not there any more", "check kernel.source.path")
    path = sources[tree].resolve()
    if (path / ".config").exists() or (path / "include/config").exists():
        raise StepFailed(
            f"{path}: a kernel was built inside this tree, so it cannot be built elsewhere",
            f"make -C {path} ARCH=um mrproper",
        )
    return path


def links_statically(tree: Path) -> bool:
    """Whether the kernel of a source tree is linked statically. Raises: StepFailed if it tells no version."""
    text = (tree / "Makefile").read_text(errors="replace")
    fields = dict(re.findall(r"^(VERSION|PATCHLEVEL)\s*=\s*(\d+)\s*$", text, re.MULTILINE))
    try:
        return (int(fields["VERSION"]), int(fields["PATCHLEVEL"])) >= _STATIC_SINCE
    except KeyError as error:
        raise StepFailed(f"{tree.name}: its Makefile tells no kernel version ({error.args[0]})") from None


def uses_hidden_tools(config: Mapping[str, str]) -> bool:
    """Whether a configuration needs rustc or pahole."""
    return any(config.get(symbol, "n") != "n" for symbol in ("RUST", "DEBUG_INFO_BTF"))


def first_errors(text: str) -> list[str]:
    """The first lines of make's output that tell what is wrong, each with the few that follow it.

    The last lines are only the makes that give up one after another.
    """
    lines = text.splitlines()
    shown: dict[int, str] = {}
    for at, line in enumerate(lines):
        if _ERROR.search(line):
            for near in range(at, min(at + 1 + _FOLLOWING, len(lines))):
                if near == at or not lines[near].startswith(("  CC", "  LD", "  AR", "make")):
                    shown[near] = lines[near]
        if len(shown) >= _SHOWN:
            break
    return list(shown.values())[:_SHOWN]


def _text_from(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")
