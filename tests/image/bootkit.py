"""Boots an image by hand: a busybox root, UML started with an argv, the console as text."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import bundles
import imagekit

from umlbuild.errors import ToolFailed
from umlbuild.host import process
from umlbuild.host.apt import Apt
from umlbuild.host.mirrors import keyring, mirrors
from umlbuild.host.store import remove
from umlbuild.host.tarball import Member
from umlbuild.kinds.inits import guest
from umlbuild.specs.packages import PackagesSpec
from umlbuild.stages import packages

BOOT_S = 120
_OVERLAY_INIT = "usr/lib/umlbuild/overlay-init"


@functools.cache
def package(name: str) -> Path:
    """The unpacked files of a Debian package of the host's suite, kept in the cache."""
    suite = process.output(["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"]).strip()
    apt = Apt(
        cache=imagekit.CACHE, mirrors=mirrors(None, os.environ), keyring=keyring(os.environ),
        architecture="amd64", fresh_for_s=86_400,
    )  # fmt: skip
    spec = PackagesSpec(suite=None, architecture="amd64", pins=(apt.pin(suite, name),))
    pool = imagekit.entry(spec, spec.pins[0].sha256, {}, packages.run)
    root = imagekit.CACHE / "unpacked" / spec.pins[0].sha256
    with imagekit.store().locked("unpacked", spec.pins[0].sha256):
        if not root.exists():
            scratch = root.with_suffix(".new")
            root.parent.mkdir(exist_ok=True)
            remove(scratch)
            process.run(["dpkg-deb", "-x", str(pool / "pool" / spec.pins[0].filename), str(scratch)],
                        log=None, timeout_s=60)  # fmt: skip
            scratch.rename(root)
    return root


def kernel() -> Path:
    """The kernel to boot: UMLBUILD_TEST_KERNEL, or the distribution's."""
    given = os.environ.get("UMLBUILD_TEST_KERNEL")
    return Path(given) if given else package("user-mode-linux") / "usr/bin/linux.uml"


def with_built_in(*symbols: str) -> Path:
    """A kernel that has all of these built in: `kernel()`, or the 7.x that the boot matrix builds from source."""
    for linux in (kernel, bundles.kernel_7):
        config = process.output([str(linux()), "--showconfig"])
        if all(f"CONFIG_{symbol}=y\n" in config for symbol in symbols):
            return linux()
    raise AssertionError(f"no kernel has {', '.join(symbols)}")


def busybox_root(init: str, more: Sequence[Member] = ()) -> list[Member]:
    """A root whose /sbin/init is this shell script."""
    busybox = (package("busybox-static") / "bin/busybox").read_bytes()
    applets = process.output([str(package("busybox-static") / "bin/busybox"), "--list"]).split()
    directories = [
        "bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/lib",
        "usr/lib/umlbuild", "var",
    ]  # fmt: skip
    members = [Member("", "dir", 0o755), *(Member(path, "dir", 0o755) for path in directories)]
    members += [
        Member("bin/busybox", "file", 0o755, data=busybox),
        *(Member(f"bin/{name}", "symlink", 0o777, target="busybox") for name in applets if name != "busybox"),
        Member("etc/passwd", "file", 0o644, data=b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"),
        Member(_OVERLAY_INIT, "file", 0o755, data=guest.text_of("overlay-init.sh").encode()),
        Member("sbin/init", "file", 0o755, data=_script(init)),
        *more,
    ]
    return sorted(members, key=lambda member: member.path)


def _script(body: str) -> bytes:
    return (
        "#!/bin/sh\nexport PATH=/bin:/sbin\n[ -e /proc/self ] || mount -t proc proc /proc\n"
        f"{body}\nsync\nmount -o remount,ro / 2>/dev/null\npoweroff -f\n"
    ).encode()


def boot(directory: Path, linux: Path, *words: str, memory: str = "128M") -> str:
    """Boot once with these words and return what the console showed; `directory` gets the run's files."""
    directory.mkdir(parents=True, exist_ok=True)
    console = directory / "console"
    console.unlink(missing_ok=True)
    argv = [
        "setarch", "-R", str(linux), f"mem={memory}", f"uml_dir={directory}/", "umid=u", "con=null",
        "con0=null,fd:1", "ssl=null", "noreboot", "panic=1", *words,
    ]  # fmt: skip
    try:
        process.run(argv, log=directory / "log", stdout=console, cwd=directory, timeout_s=BOOT_S,
                    env={"TMPDIR": "/dev/shm", "LD_PRELOAD": str(bundles.preload())})  # fmt: skip
    except ToolFailed as error:
        shown = console.read_text(errors="replace")
        raise BootFailed(error.cause, shown) from error
    return console.read_text(errors="replace")


class BootFailed(Exception):
    """The machine did not end well; the console is part of the message."""

    def __init__(self, cause: str, console: str) -> None:
        super().__init__(f"{cause}\n{console[-3000:]}")
        self.console = console


def sparse_copy(source: Path, target: Path) -> Path:
    """A writable copy with its holes."""
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
    target.chmod(0o644)
    return target
