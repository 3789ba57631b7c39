"""Machines with `transport = "user"`: real packets to an outside that the test is, and what stays shut."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import bundles
import pytest
import world
from bundles import started
from world import NAME, OUTSIDE, OUTSIDE6, PAGE, RESOLVER

from umlbuild.runtime.machine import Machine

pytestmark = [
    pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(world.why_not()), reason=world.why_not()),
]  # fmt: skip

FORWARDS = ["8080->80", "udp:127.0.0.1:5353->53"]

GET6 = "timeout 5 bash -c 'exec 3<>/dev/tcp/{}; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3' | tail -n 1"


def data(name: str, kernel: dict[str, Any] = bundles.PREBUILT, init: Any = "busybox", **transport: Any) -> Any:
    network = {"transport": {"kind": "user", "forward": FORWARDS, **transport}}
    packages = {"packages": ["busybox-static"]}
    return bundles.recipe(name, kernel, init, "ext4", network=[network], rootfs=packages)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.build(data("online"), tmp_path_factory.mktemp("project"))


def said(machine: Machine, command: str) -> bytes:
    return machine.exec(command, timeout_s=30).stdout


def home_of(machine: Machine) -> Path:
    return machine.mconsole_path.parents[2]


def slirp_of(machine: Machine) -> int:
    pids = world.processes_of(home_of(machine))
    return next(pid for pid, words in pids.items() if words.startswith("/usr/bin/slirp4netns "))


def waited(machine: Machine, command: str, words: bytes) -> None:
    """systemd starts the agent before interfaces are up."""
    deadline = time.monotonic() + 30
    while words not in said(machine, command):
        assert time.monotonic() < deadline, said(machine, command)
        time.sleep(0.3)


def online(machine: Machine) -> None:
    """The guest has an address, names, and the outside."""
    waited(machine, "ip -4 addr show vec0", b"inet 10.0.2.15/24")
    assert said(machine, "cat /etc/resolv.conf").split() == [b"nameserver", b"10.0.2.3"]
    assert said(machine, world.get(NAME)) == PAGE
    assert said(machine, "cat /sys/class/net/vec0/mtu").strip() == b"9000"


def forwarded(machine: Machine, tcp: int = 8080) -> None:
    """Both forwards lead into the guest."""
    machine.exec(
        f"{world.SERVER} "
        "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Proto => \"udp\", LocalPort => 53); "
        "while ($s->recv($x, 99)) { $s->send(uc $x) }' >/dev/null 2>&1 </dev/null &",
        timeout_s=30,
    )
    deadline = time.monotonic() + 20
    got = b""
    while got != b"guest\n" and time.monotonic() < deadline:
        with socket.create_connection(("127.0.0.1", tcp), timeout=5) as line:
            got = line.makefile("rb").read()  # empty as long as nobody listens in the guest
    assert got == b"guest\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(1)
        line.connect(("127.0.0.1", 5353))
        got = b""
        while not got and time.monotonic() < deadline:
            line.send(b"datagram")
            with contextlib.suppress(TimeoutError):
                got = line.recv(99)
        assert got == b"DATAGRAM"


LOOPBACKS = {
    "10.0.2.2:8000": "", "10.0.2.77:8000": "",
    "10.0.2.3:8000": "",  # the host's name server is at RESOLVER
    # As guest root can do it: the loopback's addresses by way of the gateway.
    "127.0.0.1:8000": "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo; "
                      "ip route add 127.0.0.0/8 via 10.0.2.2; ",
}  # fmt: skip
"""Where the guest could look for the host's loopback → how it gets there."""


def reached(machine: Machine) -> set[str]:
    """Through which of LOOPBACKS the guest reaches what listens on the host's loopback."""
    return {where for where, how in LOOPBACKS.items() if said(machine, how + world.get(where)) == PAGE}


def serve_loopback() -> None:
    for address in ("127.0.0.1", RESOLVER):
        world.serve(address, 8000)


def test_online(bundle: Path) -> None:
    def body() -> None:
        world.serve(OUTSIDE, 80)
        serve_loopback()
        with started(bundle) as machine:
            online(machine)
            forwarded(machine)
            # The interface comes and goes.
            for _ in range(3):
                assert machine.exec("ip link set vec0 down; ifdown vec0; ifup vec0", timeout_s=30).ok
                online(machine)
            # The host moves to another network: another name server, in a new file.
            Path("/mnt/new").write_text(f"nameserver {OUTSIDE}\n")
            subprocess.run(["mount", "--bind", "/mnt/new", "/etc/resolv.conf"], check=True, timeout=10)
            time.sleep(4)  # the copy is renewed every 2 s, slirp4netns looks at it every 1 s
            assert f"nameserver {OUTSIDE}" in Path(home_of(machine) / "net/resolv.conf").read_text()
            online(machine)
            world.name_servers(RESOLVER)
            time.sleep(4)
            assert reached(machine) == set()
            pids = world.processes_of(home_of(machine))
            assert slirp_of(machine) in pids
        assert world.all_gone(pids) == []

    world.inside(body)


@pytest.mark.parametrize(("name", "transport", "open_ones"), [
    pytest.param("open", {"host_loopback": True}, {"10.0.2.2:8000", "127.0.0.1:8000"}, marks=pytest.mark.slow),
    ("shut", {"forward": []}, set()),
])  # fmt: skip
def test_the_hosts_loopback(name: str, transport: dict[str, Any], open_ones: set[str], tmp_path: Path) -> None:
    """Open when the recipe says so; shut by slirp4netns itself when there is no UDP forward."""
    bundle = bundles.build(data(f"loopback-{name}", **transport), tmp_path)

    def body() -> None:
        serve_loopback()
        with started(bundle) as machine:
            assert reached(machine) == open_ones

    world.inside(body)


@pytest.mark.slow  # a network asks for symbols that the other tests' kernel does not have
def test_7x_and_systemd(tmp_path: Path) -> None:
    """And IPv6, which prebuilt kernels do not have."""
    bundle = bundles.build(data("online-7", bundles.source_7(), "systemd", ipv6=True), tmp_path)

    def body() -> None:
        for address in (OUTSIDE, OUTSIDE6):
            world.serve(address, 80)
        serve_loopback()
        world.serve("::1", 8000)
        with started(bundle, "--port", "8080=18080") as machine:
            online(machine)
            forwarded(machine, 18080)
            waited(machine, "ip -6 addr show vec0", b"inet6 fd00:")
            assert said(machine, GET6.format(f"{OUTSIDE6}/80")) == PAGE
            for where in ("fd00::2/8000", "fe80::2%vec0/8000"):
                assert said(machine, GET6.format(where)) == b""
            assert reached(machine) == set()

    world.inside(body)


def test_what_slirp4netns_has_of_the_host(bundle: Path, open_place: Path) -> None:
    """Started by root: it is nobody, without capabilities, in an empty root."""
    copy = open_place / "online"
    subprocess.run(["cp", "-a", "--sparse=always", bundle, copy], check=True, timeout=120)

    def body() -> None:
        world.serve(OUTSIDE, 80)
        with started(copy, allow_root=False) as machine:
            online(machine)
            slirp = Path("/proc") / str(slirp_of(machine))
            rows = dict(line.split(":", 1) for line in (slirp / "status").read_text().splitlines())
            assert set(rows["Uid"].split()) == {"65534"}
            assert {int(rows[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")} == {0}
            assert (rows["NoNewPrivs"].strip(), rows["Seccomp"].strip()) == ("1", "2")
            for space in ("user", "mnt", "pid", "ipc", "uts"):
                assert os.readlink(slirp / "ns" / space) != os.readlink(f"/proc/self/ns/{space}")
            seen = {path.name for path in (slirp / "root").iterdir()}
            assert seen <= {"dev", "etc", "lib", "lib64", "usr", home_of(machine).parts[1]}
            assert {path.name for path in (slirp / "root/etc").iterdir()} <= {"resolv.conf", "ld.so.cache"}
            assert {path.name for path in (slirp / "root" / "usr/bin").iterdir()} == {"slirp4netns"}
            held = {path.name for path in (slirp / "root" / home_of(machine).relative_to("/") / "net").iterdir()}
            assert held == {"slirp"}
            # What the launcher's caller had open is not there.
            opened = {os.readlink(link) for link in (slirp / "fd").iterdir()}
            assert not [what for what in opened if what.startswith("/") and what != "/dev/null"]

    world.inside(body)


@pytest.mark.parametrize(("kind", "port"), [("tcp", 8080), ("udp", 5353)])
def test_a_port_that_is_in_use(bundle: Path, kind: str, port: int) -> None:
    def body() -> None:
        with world.occupied(socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM, "127.0.0.1", port):
            done = subprocess.run(
                [bundle / "run", "--ephemeral", "--allow-root", "--timeout", "60"], stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=90, check=False,
            )  # fmt: skip
        assert done.returncode == 125
        assert f"127.0.0.1:{port} ({kind}) is in use by process {os.getpid()} (" in done.stderr
        assert f"--port {port}=PORT" in done.stderr
        assert not bundles.homes("uml-*", bundle.parent)

    world.inside(body)


def test_the_launcher_is_killed(bundle: Path) -> None:
    def body() -> None:
        with started(bundle) as machine:
            home = home_of(machine)
            pids = world.processes_of(home)
            assert slirp_of(machine) in pids
            # Everything but the janitor's own file descriptors is found by this directory.
            launchers = [pid for pid, words in pids.items() if f"{bundle}/run" in words and "--janitor" not in words]
            assert launchers
            for pid in launchers:
                os.kill(pid, signal.SIGKILL)
            assert world.all_gone(pids) == []
            assert not (home / "net").exists()

    world.inside(body)


def test_slirp4netns_dies(bundle: Path) -> None:
    """The machine goes on, and its launcher says what has happened."""

    def body() -> None:
        world.serve(OUTSIDE, 80)
        with started(bundle) as machine:
            online(machine)
            os.kill(slirp_of(machine), signal.SIGKILL)
            deadline = time.monotonic() + 10
            while b"slirp4netns has ended" not in machine.console.tail() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert b"online: vec0: slirp4netns has ended, and with it the network" in machine.console.tail()
            assert not machine.exec(world.get(OUTSIDE), timeout_s=30).ok
            assert machine.exec("ping -c 1 -W 1 10.0.2.2; true", timeout_s=30).ok

    world.inside(body)


def test_a_plain_user(tmp_path: Path, open_place: Path) -> None:
    """Nobody, without any privilege; and an init that is one program."""
    command = f"{world.get(NAME)} && {world.get(NAME)} && exit 7"
    init = {"kind": "script", "command": ["/bin/sh", "-c", command]}
    built = bundles.build(data("plain", init=init), tmp_path)
    copy = open_place / "plain"
    subprocess.run(["cp", "-a", "--sparse=always", built, copy], check=True, timeout=120)

    def body() -> None:
        world.serve(OUTSIDE, 80)
        done = subprocess.run(
            [copy / "run", "--ephemeral", "--timeout", "100"], user=65534, group=65534, extra_groups=[], umask=0o22,
            env={"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, capture_output=True, timeout=150, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.replace(b"\r", b"")) == (7, PAGE * 2), done.stderr[-3000:]

    world.inside(body)
