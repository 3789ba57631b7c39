"""Inits × images × kernels: each bundle is really built and booted, and its files are what was declared."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundles
import pytest
from bundles import started

from umlbuild.runtime.failures import AgentLost, MachineError
from umlbuild.runtime.machine import Machine

pytestmark = [pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800)]

INITS: dict[str, Any] = {
    "systemd": "systemd",
    "sysvinit": "sysvinit",
    "busybox": "busybox",
    "script": {"kind": "script", "command": ["/bin/sh", "-c", "echo out; sleep 300"]},
}
KERNELS = {"6.1": lambda: bundles.PREBUILT, "7.x": bundles.source_7}

PAIRS = [
    # init, image, kernel: each differs in code from the ones before
    ("systemd", "ext4", "6.1"),
    ("sysvinit", "erofs", "7.x"),
    ("script", "squashfs", "7.x"),
    ("systemd", "btrfs", "6.1"),
    ("busybox", "ext4", "6.1"),
    ("busybox", "xfs", "7.x"),
    ("script", "ext4", "6.1"),
]
ALL = [(i, f, k) for i in INITS for f in ("ext4", "btrfs", "squashfs", "erofs", "xfs") for k in KERNELS]
IMPOSSIBLE = {  # the distribution's kernel has these as modules, and there is no initrd
    ("6.1", "erofs"), ("6.1", "squashfs"),
}  # fmt: skip
WIDE = [p for p in ALL if p not in PAIRS and (p[2], p[1]) not in IMPOSSIBLE]


@pytest.mark.parametrize(("init", "image", "kernel"), PAIRS, ids=["-".join(p) for p in PAIRS])
def test_it_boots(init: str, image: str, kernel: str, tmp_path: Path) -> None:
    check(init, image, kernel, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("init", "image", "kernel"), WIDE, ids=["-".join(p) for p in WIDE])
def test_it_boots_too(init: str, image: str, kernel: str, tmp_path: Path) -> None:
    check(init, image, kernel, tmp_path)


def check(init: str, image: str, kernel: str, tmp_path: Path) -> None:
    name = f"m-{init}-{image}-{kernel[0]}"
    rootfs = {
        "hostname": "demo-host",
        "users": [{"name": "ann", "uid": 1234, "groups": ["adm"], "ssh_keys": ["ssh-ed25519 AAAA ann"]}],
        "files": [{"path": "/etc/motd", "content": "hello\n", "mode": "0640", "group": "adm"}],
        "symlinks": [{"path": "/opt/link", "target": "/etc/motd"}],
        "tmpfs": [{"path": "/scratch", "size": "8M"}],
    }
    data = bundles.recipe(name, KERNELS[kernel](), INITS[init], image, rootfs=rootfs)
    with started(bundles.build(data, tmp_path)) as machine:
        assert run(machine, "hostname || cat /proc/sys/kernel/hostname").strip() == "demo-host"
        assert run(machine, "uname -r").startswith(kernel[0])
        assert run(machine, "stat -c '%a %U %G' /etc/motd; cat /opt/link").split() == ["640", "root", "adm", "hello"]
        assert run(machine, "id -u ann; id -Gn ann").split() == ["1234", "ann", "adm"]
        assert run(machine, "stat -c '%a %U' ~ann/.ssh/authorized_keys").split() == ["600", "ann"]
        assert run(machine, "cut -d: -f2 /etc/shadow | grep -c '^\\$' || true").strip() == "0"  # nobody can log in
        owners = run(machine, "stat -c '%a %u:%g' /etc/shadow /usr/bin/su").splitlines()
        assert owners == ["640 0:42", "4755 0:0"]
        servers = set(run(machine, "cat /etc/resolv.conf 2>/dev/null || true").splitlines())
        assert not servers & set(Path("/etc/resolv.conf").read_text().splitlines())  # no copy of the host's
        assert not any(line.startswith("nameserver") for line in servers)  # and the recipe names none
        mounts = {line.split()[1]: line.split()[2] for line in run(machine, "cat /proc/mounts").splitlines()}
        assert mounts["/"] == ("overlay" if image in ("squashfs", "erofs") else image)
        assert mounts["/scratch"] == "tmpfs"
        run(machine, "echo x >/var/tmp/written && test -s /var/tmp/written")
        assert run(machine, "cat /proc/sys/kernel/modules_disabled").strip() == "1"
        if kernel == "7.x":
            assert "dummy" in run(machine, "cat /proc/modules")
        if init == "systemd":
            assert run(machine, "systemctl --failed --no-legend") == ""
        outcome = machine.stop()
        assert (outcome.kind, outcome.status) == ("exit", 0), machine.console.lines()


def run(machine: Machine, command: str) -> str:
    try:
        result = machine.exec(command, timeout_s=60)
    except AgentLost:
        tell(machine)
        raise
    assert result.ok, (command, result.status, result.stdout, result.stderr)
    return result.stdout.decode()


def tell(machine: Machine) -> None:
    """What a machine that does not answer is doing, for the report."""
    words = ["ps", "-eo", "pid,ppid,pgid,stat,wchan:20,time,args"]
    print(subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stdout)
    for command in ("version", "sysrq m", "sysrq t"):
        with contextlib.suppress(MachineError):
            print(command, machine.mconsole(command))
    print(*machine.console.lines(), sep="\n")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No UML process of this test outlives it."""
    yield
    left = [
        pid for pid in Path("/proc").glob("[0-9]*")
        if str(tmp_path).encode() in _read(pid / "cmdline")
    ]  # fmt: skip
    assert left == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_bare_root_is_busybox_and_nothing_else(tmp_path: Path) -> None:
    data = bundles.recipe("bare", bundles.source_7(), "busybox", "erofs", rootfs={"bootstrap": "extract"})
    bundle = bundles.build(data, tmp_path)
    assert (bundle / "root.img").stat().st_size < 8 << 20
    with started(bundle) as machine:
        assert run(machine, "readlink -f /bin/sh").strip() == "/usr/bin/busybox"
        assert run(machine, "cut -d' ' -f1-3 /proc/mounts | grep ' / '").split()[2] == "overlay"
        assert run(machine, "touch /written && echo $?").strip() == "0"
        assert machine.stop().status == 0
