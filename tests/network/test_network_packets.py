"""Packets through every transport: between a machine and its host, and between two machines, on each kernel.

All of it in namespaces of the test's own. Two pairs of machines: one needs nothing of the host's but its network and
runs as nobody, one needs CAP_NET_RAW and runs as root without anything else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bundles
import netkit
import pytest
from netkit import command, ip, namespace, numbered, run, started

from umlbuild.runtime.machine import Machine

pytestmark = [
    pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can put this process into a network namespace"),
]  # fmt: skip

KERNELS: dict[str, Callable[[], dict[str, Any]]] = {"7.x": bundles.source_7, "6.1": lambda: dict(bundles.PREBUILT)}
CABLE = 30
HUB = "/mnt/hub"
SIZE = 1_000_000
FILTER = "arp or icmp or tcp port 5000"


def tunnels(*, left: bool, capable: bool) -> list[dict[str, Any]]:
    """The interfaces between two machines, as one of them has them: what one receives, the other sends."""
    me, you = ("1", "2") if left else ("2", "1")
    both4 = {"src": f"127.0.0.{me}", "dst": f"127.0.0.{you}"}
    both6 = {"src": f"fd77::{me}", "dst": f"fd77::{you}"}
    udp = {"kind": "l2tpv3", "udp": True, "srcport": 15000 + int(me), "dstport": 15000 + int(you)}
    l2tp = {"kind": "l2tpv3"}
    session = {"rx_session": 70 + int(me), "tx_session": 70 + int(you)}
    cookie = {"rx_cookie": 0xFFFFFF00 + int(me), "tx_cookie": 0xFFFFFF00 + int(you)}
    cookie64 = {"rx_cookie": 0xFFFFFFFFFFFFFF00 + int(me), "tx_cookie": 0xFFFFFFFFFFFFFF00 + int(you), "cookie64": True}
    if capable:
        keys = {"rx_key": 0x7FFFFF00 + int(me), "tx_key": 0x7FFFFF00 + int(you)}
        return [
            {"kind": "gre", **both4, **keys, "sequence": True},
            {"kind": "gre", **both6, "sequence": True, "pin_sequence": True},
            {**l2tp, **both4, **session, **cookie},
            {**l2tp, **both6, **session, **cookie64, "counter": True},
        ]
    return [
        {**udp, **both4, **session, **cookie64, "counter": True, "pin_counter": True},
        {**udp, **both6, **session, **cookie},
        {"kind": "fd", "fd": CABLE},
        {"kind": "bess", "dst": HUB},
    ]


def interfaces(*, left: bool, capable: bool) -> list[dict[str, Any]]:
    """`[[network]]` of one machine: those between the two are 10.77.1NN.0/30, those to the host 10.77.N.0/30."""
    found: list[dict[str, Any]] = []
    if left:
        transports: list[dict[str, Any]] = [{"kind": "tap", "ifname": "umlt0"}, {"kind": "raw", "ifname": "uml1"}]
        if capable:
            transports = [{"kind": "hybrid", "ifname": "umlt0"}, {"kind": "raw", "ifname": "uml1", "via": "kernel"}]
        for number, transport in enumerate(transports):
            host: dict[str, str] = {"address": f"10.77.{number}.1/30", **({"peer": "uml1-host"} if number else {})}
            found.append({"transport": transport, "address": f"10.77.{number}.2/30", "host": host})
    for number, transport in enumerate(tunnels(left=left, capable=capable)):
        found.append({"transport": transport, "address": f"10.77.{100 + number}.{1 if left else 2}/30", "mtu": 1400})
    return found


def pair(kernel: str, capable: bool, directory: Path) -> list[Path]:
    """Both bundles. The plain ones are busybox and nothing else, the others have Debian's ifupdown."""
    built = []
    for left in (True, False):
        name = f"net-{'capable' if capable else 'plain'}-{'left' if left else 'right'}-{kernel[0]}"
        networks = interfaces(left=left, capable=capable)
        data = netkit.recipe(name, KERNELS[kernel](), networks, bare=not capable)
        built.append(bundles.build(data, directory))
    return built


@pytest.fixture
def shelf() -> Iterator[Path]:
    yield from netkit.open_directory()


@contextlib.contextmanager
def place(directory: Path) -> Iterator[None]:
    """Namespaces for the test, with addresses for both ends of tunnels and a place for sockets."""
    with namespace(directory):
        for one in ("fd77::1/128", "fd77::2/128"):
            ip("addr", "add", one, "dev", "lo", "nodad")
        command("mount", "-t", "tmpfs", "-o", "mode=0755", "tests", "/mnt")
        yield


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_any_capability(kernel: str, shelf: Path) -> None:
    left, right = pair(kernel, False, shelf)
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        place(shelf), net(left), netkit.Hub(Path(HUB)), ends[0], ends[1],
    ):  # fmt: skip
        with numbered(ends[0], CABLE) as end:
            machine = started(left, root=False, descriptors=[end])
        with numbered(ends[1], CABLE) as end, machine, started(right, root=False, descriptors=[end]) as second:
            assert status(machine)["Uid"] == [str(pwd.getpwnam("nobody").pw_uid)] * 4
            assert status(machine)["CapEff"] == ["0000000000000000"]
            host_and_machine(machine, ("10.77.0", "10.77.1"))
            machine_and_machine(machine, second, 4)


@pytest.mark.parametrize("kernel", ["7.x", pytest.param("6.1", marks=pytest.mark.slow)])
def test_with_one_capability(kernel: str, shelf: Path) -> None:
    left, right = pair(kernel, True, shelf)
    with place(shelf), net(left), started(left, root=True) as machine, started(right, root=True) as second:
        assert {status(one)[name][0] for one in (machine, second) for name in ("CapEff", "CapBnd")} == {
            f"{1 << 13:016x}"
        }
        host_and_machine(machine, ("10.77.0", "10.77.1"))
        machine_and_machine(machine, second, 4)


def test_vde(shelf: Path) -> None:
    """Two machines at one switch. UML runs vde_plug, so there is no sandbox."""
    for program in ("vde_plug", "vde_switch"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: vdeplug, vde2)")
    built = []
    for number in (1, 2):
        transport = {"kind": "vde", "vnl": "vde:///mnt/vde", "descr": f"m{number}", "port": number, "mode": "0600"}
        networks = [{"transport": transport, "address": f"10.77.100.{number}/30"}]
        data = netkit.recipe(f"net-vde-{number}", bundles.source_7(), networks, bare=True)
        data["launch"]["sandbox"] = "none"
        built.append(bundles.build(data, shelf))
    options = ["--no-sandbox"]
    with (
        place(shelf), switch(),
        started(built[0], root=True, options=options) as one, started(built[1], root=True, options=options) as two,
    ):  # fmt: skip
        machine_and_machine(one, two, 1)


def test_two_machines_at_one_bridge(shelf: Path) -> None:
    built = []
    for number in (1, 2):
        transport = {"kind": "tap", "ifname": f"uml{number}"}
        networks = [{"transport": transport, "address": f"10.77.100.{number}/30", "host": {"bridge": "lab"}}]
        data = netkit.recipe(f"net-bridge-{number}", dict(bundles.PREBUILT), networks, bare=True)
        built.append(bundles.build(data, shelf))
    with place(shelf):
        for bundle in built:
            command(str(bundle / "net"), "up")
        with started(built[0], root=False) as one, started(built[1], root=False) as two:
            machine_and_machine(one, two, 1)
        for bundle in built:
            command(str(bundle / "net"), "down")
        assert [line.split()[1] for line in ip("-o", "link").splitlines()] == ["lo:"]


@contextlib.contextmanager
def switch() -> Iterator[None]:
    """A vde_switch, which ends after its machines: see what docs/network.md says of the other side's end."""
    with subprocess.Popen(["vde_switch", "-s", "/mnt/vde"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.terminate()
            process.communicate(timeout=10)


@pytest.mark.parametrize("via", ["kernel", "descriptor"])
def test_raw_hears_what_the_filter_says_and_not_itself(via: str, shelf: Path) -> None:
    transport = {"kind": "raw", "ifname": "uml0", "via": via}
    host = {"peer": "h0", "address": "10.77.0.1/30"}
    networks = [{"transport": transport, "address": "10.77.0.2/30", "host": host, "filter": FILTER}]
    data = netkit.recipe(f"net-own-{via}", bundles.source_7(), networks, bare=True)
    bundle = bundles.build(data, shelf)
    with place(shelf), net(bundle), started(bundle, root=via == "kernel") as machine:
        for port in (5000, 5001):
            run(machine, f"busybox nc -ll -p {port} -e echo here >/dev/null 2>&1 </dev/null &")
        before = received(machine)
        run(machine, "busybox ping -c 10 -i 0.1 -W 5 10.77.0.1 || busybox ping -c 10 -W 5 10.77.0.1")
        assert received(machine) - before < 20  # ten answers; without the filter its ten questions, too
        with socket.create_connection(("10.77.0.2", 5000), timeout=20) as stream:
            assert stream.recv(10) == b"here\n"
        with pytest.raises(TimeoutError):
            socket.create_connection(("10.77.0.2", 5001), timeout=2)


def received(machine: Machine) -> int:
    return int(run(machine, "cat /sys/class/net/vec0/statistics/rx_packets"))


def status(machine: Machine) -> dict[str, list[str]]:
    """What /proc says of UML: the process whose program is `linux`, in the machine's directory."""
    for pid in Path("/proc").glob("[0-9]*"):
        try:
            words = (pid / "cmdline").read_bytes().split(b"\0")
            if words[0] == os.fsencode(machine.mconsole_path.parents[2] / "linux"):
                lines = (pid / "status").read_text().splitlines()
                return {line.split(":")[0]: line.split(":")[1].split() for line in lines}
        except OSError:
            continue
    raise AssertionError("UML is not there")


class net:
    """The host's side of a bundle's network, while inside."""

    def __init__(self, bundle: Path) -> None:
        self.program = str(bundle / "net")

    def __enter__(self) -> None:
        command(self.program, "up")
        assert "nothing to do" in command(self.program, "up")
        assert "is there" in command(self.program, "status")

    def __exit__(self, *_: object) -> None:
        command(self.program, "down")
        assert [line.split()[1] for line in ip("-o", "link").splitlines()] == ["lo:"]


def host_and_machine(machine: Machine, networks: tuple[str, ...]) -> None:
    """ICMP out, and a TCP stream each way, each byte of it looked at."""
    run(machine, "busybox nc -ll -p 5000 -e md5sum >/dev/null 2>&1 </dev/null &")
    data = os.urandom(SIZE)
    for start in networks:
        run(machine, f"busybox ping -c 2 -W 5 {start}.1")
        with socket.create_connection((f"{start}.2", 5000), timeout=30) as stream:
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
            assert stream.recv(100).split()[0].decode() == hashlib.md5(data).hexdigest()
        with listening(f"{start}.1") as sums:
            run(machine, f"head -c {SIZE} /dev/urandom >/tmp/x && busybox nc {start}.1 5000 </tmp/x >/dev/null")
            wanted = run(machine, "busybox md5sum </tmp/x").split()[0]
        assert sums == [wanted]


class listening:
    """A server that takes one stream; a list with its sum afterwards."""

    def __init__(self, address: str) -> None:
        self._listener = socket.create_server((address, 5000))
        self._listener.settimeout(30)
        self._sums: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> list[str]:
        self._thread.start()
        return self._sums

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        self._listener.close()

    def _serve(self) -> None:
        stream, _ = self._listener.accept()
        with stream:
            stream.settimeout(30)
            total = hashlib.md5()
            while block := stream.recv(65536):
                total.update(block)
            self._sums.append(total.hexdigest())


def machine_and_machine(left: Machine, right: Machine, count: int) -> None:
    """Through each of the interfaces between the two: ICMP, and a TCP stream whose sum comes back."""
    run(right, "busybox nc -ll -p 5000 -e md5sum >/dev/null 2>&1 </dev/null &")
    time.sleep(0.2)
    for number in range(count):
        address = f"10.77.{100 + number}.2"
        run(left, f"busybox ping -c 2 -W 5 {address}")
        said = run(left, f"head -c {SIZE} /dev/urandom >/tmp/x && busybox nc {address} 5000 </tmp/x")
        assert said.split()[0] == run(left, "busybox md5sum </tmp/x").split()[0], address
