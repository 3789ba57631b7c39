"""The sandbox, the shares and the hardening of real machines, looked at from both sides."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import bundles
import oddhosts
import pytest
from bundles import started

from umlbuild.runtime.machine import Machine

pytestmark = [pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800)]


def uml_processes(machine: Machine) -> list[Path]:
    """The processes of the machine's kernel, as the host sees them."""
    marker = str(machine.mconsole_path.parents[2] / "linux").encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().startswith(marker):
                found.append(entry)
        except OSError:
            continue
    return found


def status_of(process: Path) -> dict[str, str]:
    rows = (line.partition(":") for line in (process / "status").read_text().splitlines())
    return {name: value.strip() for name, _, value in rows}


def namespaces_of(process: Path, spaces: Iterable[str]) -> list[str]:
    """Of one that still lives, [] of one that ended."""
    try:
        return [os.readlink(process / "ns" / space) for space in spaces]
    except (FileNotFoundError, ProcessLookupError):
        return []


def statuses(processes: Iterable[Path]) -> Iterator[dict[str, str]]:
    """Of those that still live: processes of the guest end at any time."""
    for process in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield status_of(process)


@pytest.mark.parametrize("kernel", ["6.1", "7.x"])
def test_what_uml_has_of_the_host(kernel: str, tmp_path: Path) -> None:
    source = bundles.PREBUILT if kernel == "6.1" else bundles.source_7()
    data = bundles.recipe(f"jail-{kernel[0]}", source, "busybox", "ext4")
    with started(bundles.build(data, tmp_path)) as machine:
        processes = uml_processes(machine)
        rows = list(statuses(processes))
        assert rows
        for status in rows:
            assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")} == {0}
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        spaces = ("user", "mnt", "pid", "ipc", "uts", "net", "cgroup")
        assert not {os.readlink(f"/proc/self/ns/{space}") for space in spaces} & {
            where for process in processes for where in namespaces_of(process, spaces)
        }
        root = processes[0] / "root"
        seen = {path.relative_to(root).as_posix() for path in walk(root, depth=2)}
        home = machine.mconsole_path.parents[2].relative_to("/").as_posix().split("/")
        libraries = {"lib", "lib64"} | {f"lib/{p.name}" for p in (tmp_path / f"dist/jail-{kernel[0]}/lib").glob("*")}
        libraries |= {"lib64/ld-linux-x86-64.so.2"}
        expected = {"dev", "dev/null", "dev/random", "dev/shm", home[0], "/".join(home[:2])}
        assert seen == expected | (libraries if kernel == "6.1" else set())
        held = {path.name for path in (root / machine.mconsole_path.parents[2].relative_to("/")).iterdir()}
        assert held == {"linux", "root.img", "root.cow", "box", "notify", "u"}


def walk(root: Path, depth: int) -> Iterator[Path]:
    for path in root.iterdir():
        yield path
        if depth > 1 and path.is_dir() and not path.is_symlink():
            yield from walk(path, depth - 1)


@pytest.mark.parametrize("init", ["systemd", "busybox"])
def test_shares(init: str, tmp_path: Path, open_place: Path) -> None:
    for name in ("ro", "rw", "other"):
        (open_place / name).mkdir(mode=0o777)
        (open_place / name).chmod(0o777)
        (open_place / name / "file").write_text(f"this is {name}\n")
    shares = [
        {"host": str(open_place / "ro"), "guest": "/srv/ro"},
        {"host": "/nonexistent/as/built", "guest": "/srv/rw", "writable": True},
    ]
    data = bundles.recipe(f"share-{init}", bundles.PREBUILT, init, "ext4", share=shares)
    bundle = bundles.build(data, tmp_path)
    with started(bundle, "--share", f"/srv/rw={open_place / 'rw'}") as machine:
        assert machine.exec("cat /srv/ro/file /srv/rw/file").stdout == b"this is ro\nthis is rw\n"
        assert not machine.exec("echo x >/srv/ro/new").ok
        machine.exec("mount -o remount,rw /srv/ro; mount -o remount,rw /usr/lib/umlbuild/shares; echo x >/srv/ro/file")
        assert (open_place / "ro" / "file").read_text() == "this is ro\n"
        assert machine.exec("echo new >/srv/rw/new && chmod 600 /srv/rw/new").ok
        assert (open_place / "rw" / "new").read_text() == "new\n"
        machine.exec("cp /srv/rw/new /srv/rw/setid; chmod 6755 /srv/rw/setid")
        assert not (open_place / "rw" / "setid").stat().st_mode & 0o6000
        out = machine.exec(f"mount -t hostfs none /mnt -o /../../../.. && ls /mnt; cat /mnt{open_place}/other/file")
        assert b"other" not in out.stdout and b"etc" not in out.stdout.split()


def test_shares_that_are_refused(tmp_path: Path) -> None:
    bundle = bundles.build(bundles.recipe("share-refused", bundles.PREBUILT, "busybox", "ext4", share=[
        {"host": "/srv", "guest": "/srv/x"}]), tmp_path)  # fmt: skip
    home = tmp_path / "home"
    (home / "deep").mkdir(parents=True)
    for where in ("/", home, tmp_path / "dist", "/nonexistent"):
        done = subprocess.run(
            [bundle / "run", "--dry-run", "--ephemeral", "--share", f"/srv/x={where}"],
            env={**os.environ, "HOME": str(home), "UMLBUILD_ALLOW_ROOT": "1"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 125 and f"the share {where}" in done.stderr and "fix:" in done.stderr


def threads(process: Path) -> int:
    """How many it has; none if it has just ended."""
    try:
        return len(list((process / "task").iterdir()))
    except OSError:
        return 0


@pytest.mark.parametrize("kernel", ["6.1", "7.x"])
def test_processes_are_limited(kernel: str, tmp_path: Path, open_place: Path) -> None:
    """The guest's fork fails; the machine lives on."""
    limit = 100
    source = bundles.PREBUILT if kernel == "6.1" else bundles.source_7()
    data = bundles.recipe(f"few-{kernel[0]}", source, "busybox", "ext4", launch={"processes": limit})
    built = bundles.build(data, tmp_path)
    bundle = open_place / "few"
    subprocess.run(["cp", "-a", "--sparse=always", built, bundle], check=True, timeout=120)
    with started(bundle, allow_root=False) as machine:
        jail = os.readlink(uml_processes(machine)[0] / "ns" / "mnt")
        bomb = "i=0; while [ $i -lt 150 ]; do sleep 5 & i=$((i+1)); done"
        tell = "while read -r line; do echo \"$line\"; done </tmp/said"  # cat might be one process too many
        said = machine.exec(f"sh -c '{bomb}' </dev/null >/dev/null 2>/tmp/said; {tell}").stdout
        assert b"fork" in said or b"Cannot allocate memory" in said
        count = sum(threads(entry) for entry in Path("/proc").glob("[0-9]*") if in_jail(entry, jail))
        assert limit - 20 < count <= limit
        assert machine.exec("sleep 6; cat /proc/sys/kernel/ostype").stdout == b"Linux\n"


def test_root_is_dropped(tmp_path: Path, open_place: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root drops to nobody")
    built = bundles.build(bundles.recipe("dropped", bundles.PREBUILT, "busybox", "ext4"), tmp_path)
    bundle = open_place / "dropped"
    subprocess.run(["cp", "-a", "--sparse=always", built, bundle], check=True, timeout=120)
    with started(bundle, allow_root=False) as machine:
        assert machine.exec("echo x >/written").ok
        owners = {status["Uid"].split()[0] for status in statuses(uml_processes(machine))}
        assert owners == {"65534"}


def test_within_a_container(tmp_path: Path, open_place: Path) -> None:
    """The sandbox is made in another one, by an ordinary user and by root of a user namespace."""
    init = {"kind": "script", "command": ["/bin/sh", "-c", "exit 7"]}
    built = bundles.build(bundles.recipe("contained", bundles.PREBUILT, init, "ext4"), tmp_path)
    launcher = str(open_place / "contained" / "run")
    subprocess.run(["cp", "-a", "--sparse=always", built, open_place / "contained"], check=True, timeout=120)
    container = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev",
                 "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run"]  # fmt: skip
    env = {"PATH": os.environ["PATH"], "TMPDIR": "/tmp"}

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        return oddhosts.run_on("", [*words, launcher, "--ephemeral", *options], env=env)

    options: tuple[str, ...] = ()
    assert start(*container).returncode == 7
    root = ("unshare", "--user", "--map-root-user", "--mount")
    done = start(*root)
    assert done.returncode == 125 and "fix: say --allow-root" in done.stderr
    options = ("--allow-root",)
    assert start(*root).returncode == 7


def test_a_changed_bundle_is_refused(tmp_path: Path) -> None:
    built = bundles.build(bundles.recipe("changed", bundles.PREBUILT, "busybox", "ext4"), tmp_path)
    bundle = tmp_path / "copy"
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", built, bundle], check=True, timeout=120)

    def refused() -> str:
        argv = [str(bundle / "run"), "--ephemeral", "--dry-run"]
        env = {**os.environ, "UMLBUILD_ALLOW_ROOT": "1"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in (0, 125)
        return done.stderr if done.returncode else ""

    for name in ("root.img", "seccomp.bpf", "linux", "lib/libc.so.6"):
        file = bundle / name
        times = file.stat()
        file.chmod(0o644 | times.st_mode)
        flip(file, 1000)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert f"{name}: is not the file that was built" in refused()
        flip(file, 1000)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not refused()
    shutil.rmtree(bundle)


def flip(file: Path, at: int) -> None:
    with file.open("r+b") as image:
        image.seek(at)
        byte = image.read(1)
        image.seek(at)
        image.write(bytes([byte[0] ^ 1]))


SYSCTLS = {"kernel/kptr_restrict": "2", "kernel/dmesg_restrict": "1", "kernel/modules_disabled": "1"}


@pytest.mark.parametrize("init", ["systemd", "sysvinit", "busybox"])
def test_the_guest_is_hardened(init: str, tmp_path: Path) -> None:
    data = bundles.recipe(f"hard-{init}", bundles.source_7(), init, "ext4")
    with started(bundles.build(data, tmp_path)) as machine:
        for name, value in SYSCTLS.items():
            assert machine.exec(f"cat /proc/sys/{name}").stdout.decode().strip() == value, name
        gone = machine.exec("ls /dev/mem /dev/port /proc/kcore /dev/bpf 2>/dev/null").stdout
        assert gone == b""
        assert not machine.exec("mknod /tmp/m c 1 1 && head -c 1 /tmp/m").ok
        assert not machine.exec("modprobe veth").ok
        if init == "systemd":
            assert machine.exec("systemctl --failed --no-legend").stdout == b""


@pytest.mark.slow  # compiles a kernel of its own
def test_without_modules_the_kernel_is_locked_down(tmp_path: Path) -> None:
    kernel = {"source": {"kind": "debian", "suite": "trixie-backports"}}
    with started(bundles.build(bundles.recipe("locked", kernel, "busybox", "ext4"), tmp_path)) as machine:
        assert machine.exec("mount -t securityfs s /sys/kernel/security").ok
        state = machine.exec("cat /sys/kernel/security/lockdown").stdout.decode().split()
        assert state == ["none", "[integrity]", "confidentiality"]
        assert not machine.exec("echo none >/sys/kernel/security/lockdown").ok
        # Nothing can be loaded: the kernel knows no modules.
        assert not machine.exec("ls /proc/modules /proc/sys/kernel/modules_disabled 2>/dev/null").stdout


def test_an_item_can_be_switched_off(tmp_path: Path) -> None:
    data: dict[str, Any] = bundles.recipe("soft", bundles.source_7(), "busybox", "ext4")
    data["hardening"] = {"kptr": False}  # the kernel stays the one of the other tests
    with started(bundles.build(data, tmp_path)) as machine:
        assert machine.exec("cat /proc/sys/kernel/kptr_restrict").stdout.strip() == b"0"
        assert machine.exec("cat /proc/sys/kernel/dmesg_restrict").stdout.strip() == b"1"


@pytest.mark.parametrize("trusted", [False, True])
def test_how_programs_are_run(trusted: bool, tmp_path: Path) -> None:
    """By ptrace, or by UML's seccomp mode, whose own filter then works below the sandbox's."""
    data = bundles.recipe(f"trusted-{trusted}".lower(), bundles.source_7(), "systemd", "ext4",
                          launch={"trust_userspace": trusted})  # fmt: skip
    with started(bundles.build(data, tmp_path)) as machine:
        assert machine.exec("systemctl --failed --no-legend").stdout == b""
        assert machine.exec("i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done").ok
        jail = os.readlink(uml_processes(machine)[0] / "ns" / "mnt")
        jailed = [entry for entry in Path("/proc").glob("[0-9]*") if in_jail(entry, jail)]
        traced = {status["TracerPid"] != "0" for status in statuses(jailed)}
        assert (True in traced) is not trusted


def in_jail(process: Path, jail: str) -> bool:
    try:
        return os.readlink(process / "ns" / "mnt") == jail
    except OSError:
        return False
