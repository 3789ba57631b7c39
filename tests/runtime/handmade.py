"""Bundles made by hand for tests of launcher and runtime: no build pipeline is involved.

Kernel: Debian's prebuilt 6.1 (package user-mode-linux), or the one that UMLBUILD_TEST_KERNEL names. Roots: `busybox`
(static, from its package) and `minbase` (dash and coreutils, made by mmdebstrap). Downloads and images are kept
in the project's `cache/tests/`, each under a lock, so that parallel test runs do not disturb each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import bundles

from umlbuild import digest
from umlbuild.host import libraries, process, xstate
from umlbuild.host.identity import compilers_library
from umlbuild.kinds.sandboxes import seccomp
from umlbuild.plan.launch import render
from umlbuild.specs.launch import Disk, LaunchSettings, Share

PROJECT = Path(__file__).resolve().parents[2]
CACHE = PROJECT / "cache" / "tests"
AGENT = PROJECT / "umlbuild" / "launcher" / "guest" / "agent.sh"
MTIME = 1_700_000_000

Root = Literal["busybox", "minbase"]

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
echo 0 >/proc/sys/kernel/ctrl-alt-del
trap 'exec /off' INT
/usr/lib/umlbuild/agent </dev/null >/dev/null 2>&1 &
"""
"""What every handmade init begins with; Ctrl-Alt-Del (mconsole cad) powers off."""

OFF = """#!/bin/sh
sync
mount -o remount,ro / 2>/dev/null
poweroff -f || echo o >/proc/sysrq-trigger
sleep 100
"""

IDLE = "while :; do sleep 1000 & wait; done\n"


def status(number: int) -> str:
    """An init that ends with this status after saying so on the first terminal."""
    return f"echo guest-says-hello >/dev/tty1\necho {number} >/proc/exitcode\nexec /off\n"


@contextlib.contextmanager
def _locked(name: str) -> Iterator[Path]:
    """The directory of one cached thing, held by us alone."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield CACHE / name


def unpacked(package: str) -> Path:
    """A Debian package's files."""
    with _locked(f"deb-{package}") as home:
        if not home.exists():
            scratch = home.with_name(home.name + ".new")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            process.run(["apt-get", "download", package], cwd=scratch, log=None, timeout_s=300)
            (deb,) = scratch.glob("*.deb")
            process.run(["dpkg-deb", "-x", str(deb), str(scratch / "root")], log=None, timeout_s=60)
            deb.unlink()
            scratch.rename(home)
        return home / "root"


def kernel() -> Path:
    """The kernel to boot."""
    given = os.environ.get("UMLBUILD_TEST_KERNEL")
    return Path(given) if given else unpacked("user-mode-linux") / "usr" / "bin" / "linux.uml"


def kernel_version(binary: Path) -> str:
    """Its release, e.g. "6.1.176"."""
    return process.output([str(binary), "--version"]).strip()


def _tree(root: Root) -> Path:
    """A root file system's directory, without init and agent."""
    with _locked(f"root-{root}") as home:
        if not home.exists():
            scratch = home.with_name(home.name + ".new")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            if root == "busybox":
                _busybox(scratch)
            else:
                suite = "bookworm"
                process.run(
                    ["mmdebstrap", "--variant=essential", "--include=mount", suite, str(scratch / "root.tar")],
                    # pytest's own directories are closed to the user namespace of a plain user's mmdebstrap.
                    log=CACHE / "mmdebstrap.log", timeout_s=600, env={"TMPDIR": "/var/tmp"},
                )  # fmt: skip
                process.run(
                    ["tar", "-x", "-C", str(scratch), "--exclude=./dev/*", "-f", str(scratch / "root.tar")],
                    log=None, timeout_s=120,
                )  # fmt: skip
                (scratch / "root.tar").unlink()
            scratch.rename(home)
        return home


def _busybox(tree: Path) -> None:
    for name in ("bin", "sbin", "dev", "proc", "sys", "run", "tmp", "root", "mnt", "etc", "usr/lib/umlbuild"):
        (tree / name).mkdir(parents=True)
    shutil.copy2(unpacked("busybox-static") / "bin" / "busybox", tree / "bin" / "busybox")
    for applet in process.output([str(tree / "bin" / "busybox"), "--list"]).split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")


def image(init: str, root: Root = "busybox") -> Path:
    """An ext4 image whose init is INIT + `init`; cached by content."""
    key = digest.of_json([init, INIT, OFF, root, digest.of_file(AGENT), 1])[:16]
    base = _tree(root)
    with _locked(f"image-{root}-{key}.img") as path:
        if not path.exists():
            tree = path.with_suffix(".tree")
            shutil.rmtree(tree, ignore_errors=True)
            process.run(["cp", "-a", str(base), str(tree)], log=None, timeout_s=120)
            for name, text in (("init", INIT + init), ("off", OFF)):
                (tree / name).write_text(text)
                (tree / name).chmod(0o755)
            agent = tree / "usr" / "lib" / "umlbuild" / "agent"
            agent.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(AGENT, agent)
            agent.chmod(0o755)
            scratch = path.with_suffix(".new")
            size = "64M" if root == "busybox" else "512M"
            process.run(
                ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(scratch), size],
                log=None, timeout_s=120,
            )  # fmt: skip
            shutil.rmtree(tree)
            scratch.chmod(0o444)
            os.utime(scratch, (MTIME, MTIME))
            scratch.rename(path)
        return path


def bundle(
    directory: Path,
    init: str = IDLE,
    *,
    root: Root = "busybox",
    name: str = "handmade",
    memory_mib: int = 64,
    cmdline: Sequence[str] = ("root=/dev/ubda", "rw", "init=/init"),
    disks: Sequence[Disk] = (),
    state: Literal["persistent", "ephemeral"] = "ephemeral",
    timeout_s: int | None = None,
    sandbox: Literal["bwrap", "landlock", "none"] = "bwrap",
    shares: Sequence[Share] = (),
) -> Path:
    """A runnable bundle in `directory` (made if absent)."""
    directory.mkdir(parents=True, exist_ok=True)
    binary = kernel()
    shutil.copy2(binary, directory / "linux")
    libraries.put_beside(directory / "linux", compilers_library)
    if (directory / "lib").is_dir():
        shutil.copyfile(bundles.preload(), directory / "lib" / xstate.NAME)
    interpreter = directory / "interpreter"
    strict = sandbox == "landlock"
    (directory / "seccomp.bpf").write_bytes(seccomp.program(sockets="none", share=bool(shares), strict=strict))
    if strict:
        shutil.copy2(bundles.jail(), directory / "jail")
    source = image(init, root)
    process.run(
        ["cp", "--sparse=always", "--reflink=auto", "-p", str(source), str(directory / "root.img")],
        log=None, timeout_s=60,
    )  # fmt: skip
    for disk in disks:
        blank = directory / disk.file
        with blank.open("wb") as file:
            file.truncate(16 << 20)
        blank.chmod(0o444)
    settings = LaunchSettings(
        name=name,
        image_id=digest.of_json([init, root])[:12],
        image_mtime=MTIME,
        image_size=source.stat().st_size,
        memory_mib=memory_mib,
        kernel_version=kernel_version(binary),
        cmdline=tuple(cmdline),
        disks=tuple(disks),
        state=state,
        timeout_s=timeout_s,
        sandbox=sandbox,
        interpreter=interpreter.read_text().strip() if interpreter.exists() else "",
        shares=tuple(shares),
    )
    launcher = directory / "run"
    launcher.write_text(render(settings))
    launcher.chmod(0o755)
    return directory


def processes_in(directory: Path) -> list[int]:
    """The processes whose working directory is, or is below, `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                where = os.readlink(entry / "cwd")
                if where == str(directory) or where.startswith(f"{directory}/"):
                    found.append(int(entry.name))
    return found


def run(
    argv: Sequence[str | Path],
    *,
    env: dict[str, str],
    timeout_s: float = 60,
    stdin: int | bytes | None = subprocess.DEVNULL,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """A launcher's whole life, from the outside."""
    with subprocess.Popen(
        [*map(str, argv)], env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin,
    ) as child:  # fmt: skip
        try:
            out, err = child.communicate(stdin if isinstance(stdin, bytes) else None, timeout=timeout_s)
        except BaseException:
            child.terminate()  # its janitor ends the rest
            raise
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)
