"""Programs inside a root: unpacked with its owners, run confined, packed again.

Everything happens in one mount namespace, in a tmpfs of it where memory allows, so nothing is left behind.
A program there is root of the tree and of nothing else: own process, IPC, name and (unless asked) network
namespaces, no device but the harmless ones, and only the capabilities that package scripts need.

Source: bwrap(1), capabilities(7); tar's options are mmdebstrap 1.3.5's own, for equal archives.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umlbuild.errors import HostError, StepFailed, ToolFailed
from umlbuild.host import process, rootless
from umlbuild.host.process import EPOCH
from umlbuild.host.tree import Tree

_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_SYS_CHROOT", "CAP_NET_BIND_SERVICE", "CAP_AUDIT_WRITE",
)  # fmt: skip
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SPARE = 256 << 20

_MOUNT_POINTS = ("/etc/resolv.conf", "/usr/sbin/policy-rc.d")
"""Files that are mounted over in the root; where there was none, an empty one is left."""


@dataclass(frozen=True)
class Program:
    """A script for the root's own shell or interpreter."""

    content: str
    network: bool = False


def run(programs: Sequence[Program], tree: Tree, *, work: Path, log: Path, timeout_s: float) -> Tree:
    """Unpack a tree, run the programs one after the other in it; the tree that is there then.

    Raises: HostError (no way to make owners, no bwrap), StepFailed (a program failed: its last lines).
    """
    prefix = rootless.owners().prefix(network=any(program.network for program in programs))
    if process.find("bwrap") is None:
        raise HostError("running scripts inside the root: bwrap is not installed", "sudo apt-get install bubblewrap")
    tree.write(work / "in.tar")
    _executable(work / "policy-rc.d", "#!/bin/sh\nexit 101\n")
    steps = ["mkdir -m 0755 /tmp/root", shlex.join(_unpacking("/tmp/work/in.tar", "/tmp/root"))]
    for number, program in enumerate(programs):
        _executable(work / f"script{number}", program.content)
        command = shlex.join(_confined(number, network=program.network))
        steps.append(f"{{ {command} || {{ s=$?; echo {number} $s >/tmp/work/failed; exit $s; }}; }}")
    steps.append(shlex.join(packing("/tmp/root", "/tmp/work/out.tar")))
    argv = [*prefix, "sh", "-c", script(steps, work, size=3 * (work / "in.tar").stat().st_size)]
    failed = work / "failed"
    try:
        process.run(argv, log=log, timeout_s=timeout_s, cwd=Path("/"))
    except ToolFailed as error:
        if not failed.exists():
            raise
        which, status = failed.read_text().split()
        first = programs[int(which)].content.strip().splitlines()
        lines = "\n".join(f"  | {line}" for line in _own_lines(process.tail_of(log)))
        raise StepFailed(
            f"running script {int(which) + 1} of {len(programs)} inside the root"
            f" ({first[1] if len(first) > 1 else first[0] if first else 'empty'}): exit status {status}\n"
            f"{lines}\n  log: {log}"
        ) from error
    result = Tree.of(work / "out.tar")
    result.remove(*(path for path in _MOUNT_POINTS if tree.get(path, follow=False) is None))
    return result


def _own_lines(tail: Sequence[str]) -> list[str]:
    """What a program wrote, without the line that logs how it was started."""
    start = next((n for n in range(len(tail), 0, -1) if tail[n - 1].startswith("+ ")), 0)
    return list(tail[start:])


def script(steps: Sequence[str], work: Path, *, size: int, given: Mapping[str, Path] | None = None) -> str:
    """Shell text (for all of it has to happen in one mount namespace) that does `steps` in a /tmp of its own.

    That is a tmpfs of `size` bytes where memory allows, else a directory in `work`. `work` itself is /tmp/work
    in it, and each directory that is `given` has its name in /tmp: no path of this machine, long or with spaces,
    comes into what is made. What `steps` leave is removed by the same root that made it.
    """
    scratch = work.absolute() / "scratch"
    place = [["mkdir", str(scratch)]]
    if 2 * size < _free_memory():
        options = f"size={size + _SPARE},mode=0755"
        place.append(["mount", "-t", "tmpfs", "-o", options, "umlbuild", str(scratch)])
    binds = {"work": work, **(given or {})}
    for name, path in binds.items():
        place.append(["mkdir", str(scratch / name)])
        place.append(["mount", "--bind", str(path.absolute()), str(scratch / name)])
    place.append(["mount", "--rbind", str(scratch), "/tmp"])
    kept = " ".join(f"! -name {name}" for name in binds)
    sweep = f"find /tmp -xdev -mindepth 1 -maxdepth 1 {kept} -exec rm -rf {{}} +"
    placed = " && ".join(shlex.join(argv) for argv in place)
    return f"{placed} || exit; ({' && '.join(steps)}); status=$?; {sweep}; exit $status"


def _unpacking(archive: str, root: str) -> list[str]:
    """The command that unpacks with owners, modes and extended attributes."""
    return [
        "tar", "-C", root, "--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*",
        "-xf", archive,
    ]  # fmt: skip


def packing(root: str, archive: str) -> list[str]:
    """The command that packs, sorted, without what belongs to the moment."""
    return [
        "tar", "-C", root, "--format=pax", "--sort=name", "--numeric-owner", "--one-file-system",
        "--xattrs", "--xattrs-include=*", f"--mtime=@{EPOCH}", "--clamp-mtime",
        "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./run/*",
        "-cf", archive, ".",
    ]  # fmt: skip


def _free_memory() -> int:
    """Bytes of memory that can be used without swapping. Source: proc_meminfo(5)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _confined(number: int, *, network: bool) -> list[str]:
    argv = [
        "bwrap",
        "--bind",
        "/tmp/root",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/tmp",
    ]
    argv += ["--ro-bind", f"/tmp/work/script{number}", "/run/script"]
    argv += ["--ro-bind", "/tmp/work/policy-rc.d", "/usr/sbin/policy-rc.d"]
    argv += ["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"] if network else ["--unshare-net"]
    argv += ["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--die-with-parent", "--new-session", "--chdir", "/"]
    argv += ["--cap-drop", "ALL", *(word for name in _CAPABILITIES for word in ("--cap-add", name)), "--clearenv"]
    env = {
        "PATH": _PATH, "HOME": "/root", "USER": "root", "SHELL": "/bin/sh", "LC_ALL": "C.UTF-8", "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(EPOCH), "DEBIAN_FRONTEND": "noninteractive", "container": "umlbuild",
    }  # fmt: skip
    for name, value in env.items():
        argv += ["--setenv", name, value]
    return [*argv, "--", "/run/script"]


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
