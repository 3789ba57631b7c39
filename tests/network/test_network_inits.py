"""Each init brings the interfaces up: by DHCP and with fixed addresses of both families, routes and name servers."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundles
import netkit
import pytest
from dhcpkit import DhcpServer
from netkit import command, eventually, ip, namespace, run, started

from umlbuild.runtime.machine import Machine

pytestmark = [
    pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can put this process into a network namespace"),
]  # fmt: skip

NETWORKS: list[dict[str, Any]] = [
    {"transport": {"kind": "tap", "ifname": "umlt0"}, "address": "dhcp", "host": {"address": "10.78.0.1/24"}},
    {
        "transport": {"kind": "tap", "ifname": "umlt1"},
        "address": "10.78.1.2/24", "address6": "fd78::2/64", "gateway6": "fd78::1",
        "routes": [{"to": "10.79.0.0/16", "via": "10.78.1.1"}, {"to": "fd79::/32", "via": "fd78::1"}],
        "host": {"address": "10.78.1.1/24", "address6": "fd78::1/64", "bridge": "umlbr"},
    },
    {"transport": {"kind": "tap", "ifname": "umlt2"}, "address": "none", "host": {"bridge": "umlbr"}},
]  # fmt: skip
FIXED = [{**NETWORKS[1], "dns": ["10.78.1.53"], "gateway": "10.78.1.1"}]
INITS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "systemd": ({"init": "systemd"}, NETWORKS),
    "systemd-ifupdown": ({"init": "systemd", "packages": ["ifupdown"]}, FIXED),
    "sysvinit": ({"init": "sysvinit"}, NETWORKS),
    "busybox": ({"init": "busybox"}, NETWORKS),
    "bare": ({"init": "busybox", "bootstrap": "extract"}, NETWORKS),
}


@pytest.fixture
def shelf() -> Iterator[Path]:
    yield from netkit.open_directory()


WIDE = ("systemd-ifupdown", "busybox")
"""Each differs from another by a part that a third one has."""


@pytest.mark.parametrize("init", [pytest.param(i, marks=[pytest.mark.slow] if i in WIDE else []) for i in INITS])
def test_interfaces_come_up(init: str, shelf: Path) -> None:
    rootfs, networks = INITS[init]
    kernel = {**bundles.PREBUILT, "modules": ["ipv6"]}
    data = bundles.recipe(f"net-{init}", kernel, "busybox", "ext4", rootfs=rootfs, network=networks)
    bundle = bundles.build(data, shelf)
    with namespace(shelf):
        command(str(bundle / "net"), "up")
        if networks is FIXED:
            with started(bundle, root=False) as machine:
                assert fixed(machine, "vec0")
                assert run(machine, "cat /etc/resolv.conf") == "nameserver 10.78.1.53\n"
                assert "default via 10.78.1.1" in run(machine, "ip -4 route")
        else:
            server = DhcpServer("umlt0", "10.78.0.1/24", "10.78.0.77", "10.78.0.53")
            with server, started(bundle, root=False) as machine:
                eventually(machine, "ip -4 addr show dev vec0", "10.78.0.77/24")
                eventually(machine, "cat /etc/resolv.conf", "nameserver 10.78.0.53")
                eventually(machine, "ip -4 route", "default via 10.78.0.1")
                assert fixed(machine, "vec1")
                eventually(machine, "ip link show dev vec2", "UP,LOWER_UP")
                if init == "systemd":
                    assert run(machine, "systemctl --failed --no-legend") == ""
        command(str(bundle / "net"), "down")
        assert [line.split()[1] for line in ip("-o", "link").splitlines()] == ["lo:"]


def fixed(machine: Machine, name: str) -> bool:
    """Whether an interface has what its recipe says, and packets of both families get through it."""
    eventually(machine, f"ip addr show dev {name}", "10.78.1.2/24")
    eventually(machine, f"ip addr show dev {name}", "fd78::2/64")
    assert "10.79.0.0/16 via 10.78.1.1" in run(machine, "ip -4 route")
    routes = run(machine, "ip -6 route")
    assert "fd79::/32 via fd78::1" in routes and "default via fd78::1" in routes
    for address in ("10.78.1.2", "fd78::2"):
        with pytest.raises(ConnectionRefusedError):  # by the guest: nobody listens at this port
            socket.create_connection((address, 9), timeout=20)
    return True


def test_in_a_namespace_of_ones_own(shelf: Path) -> None:
    """An ordinary user: `unshare -Urn` gives a network to be root of, where even CAP_NET_RAW can be kept."""
    networks = [
        {"transport": {"kind": "hybrid", "ifname": "umlt0"}, "address": "10.78.0.2/24",
         "host": {"address": "10.78.0.1/24"}},
        {"transport": {"kind": "raw", "ifname": "uml1", "via": "kernel"}, "address": "10.78.1.2/24",
         "host": {"address": "10.78.1.1/24", "peer": "uml1-host"}},
    ]  # fmt: skip
    data = netkit.recipe("net-own", dict(bundles.PREBUILT), networks, bare=False)
    data["rootfs"]["files"] = [{"path": "/usr/lib/umlbuild/try", "mode": "0755", "content": OWN}]
    data["rootfs"]["init"] = {"kind": "script", "command": ["/usr/lib/umlbuild/try"]}
    data["rootfs"]["packages"] = ["busybox-static"]
    bundle = bundles.build(data, shelf)
    with namespace(shelf):
        script = f"{bundle}/net up && exec {bundle}/run --ephemeral --allow-root --timeout 100"
        nobody = pwd.getpwnam("nobody")
        done = subprocess.run(
            ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups",
             "unshare", "-Urn", "sh", "-c", script],
            capture_output=True, text=True, timeout=150, check=False, stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "both are reached" in done.stdout


OWN = """#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
busybox ip link set lo up
for n in 0 1; do
    busybox ip addr add 10.78.$n.2/24 dev vec$n
    busybox ip link set vec$n up
    busybox ping -c 1 -W 5 10.78.$n.1 || exit 1
done
echo both are reached
"""
