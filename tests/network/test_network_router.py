"""The shipped router really routes: with a machine behind it, without any privilege, and between hosts on two bridges.

The hosts are network namespaces of the test's own, each at a bridge that the router's `net up` has made. The router has
the other tests' kernel, which can do more; with its own, minutes of compiling, it is slow.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bundles
import netkit
import pytest
from netkit import command, ip, namespace, run, started

from umlbuild import digest

pytestmark = [
    pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can put this process into a network namespace"),
]  # fmt: skip

SIZE = 100_000_000


@pytest.fixture(scope="module")
def shelf() -> Iterator[Path]:
    for place in of_shipped_recipes():
        bundles.share_kernel(place / "recipes")
        yield place


def of_shipped_recipes() -> Iterator[Path]:
    for place in netkit.open_directory():
        ignored = shutil.ignore_patterns("*.lock.toml")
        shutil.copytree(bundles.PROJECT / "recipes", place / "recipes", ignore=ignored)
        yield place


def built(shelf: Path, name: str) -> Path:
    return bundles.build_file(shelf / "recipes" / f"{name}.toml", shelf)


def test_router_and_the_machine_behind_it(shelf: Path) -> None:
    bundle, behind = built(shelf, "router"), built(shelf, "client")
    assert digest.of_file(bundle / "linux") == digest.of_file(bundles.kernel_7())  # nothing was compiled for it
    routes(shelf, bundle, behind)


@pytest.mark.slow
def test_router_with_its_own_kernel() -> None:
    for shelf in of_shipped_recipes():
        routes(shelf, built(shelf, "router"), built(shelf, "client"))


def routes(shelf: Path, bundle: Path, behind: Path) -> None:
    image = (bundle / "root.img").stat()
    assert image.st_size == 2 << 30 and image.st_blocks * 512 < image.st_size / 4  # sparse
    with namespace(shelf), started(bundle, root=False) as router, started(behind, root=False) as client:
        assert run(router, "systemctl is-system-running --wait").strip() == "running"
        assert run(router, "uname -r").startswith("7.")
        assert re.search(r"^dummy ", run(router, "lsmod"), re.MULTILINE)
        assert run(router, "findmnt -n -o SOURCE,FSTYPE /").split() == ["/dev/ubda", "ext4"]
        assert run(router, "head -2 /etc/fstab | tail -1").split()[:3] == ["/dev/ubda", "/", "ext4"]
        # Module loading is off: what is not loaded stays out.
        refused = router.exec("modprobe sit", timeout_s=30)
        assert refused.status == 1 and b"Operation not permitted" in refused.stderr
        assert len(run(router, "cat /etc/machine-id").strip()) == 32
        netkit.eventually(client, "ip -4 addr show dev vec0", "inet 10.44.0.1")
        netkit.eventually(client, "cat /etc/resolv.conf", "nameserver 10.44.0.1")
        run(client, "busybox ping -c 1 -W 5 router.inside")
        # An address of the host's, which a machine reaches by its router only.
        ip("addr", "add", "192.0.2.9/32", "dev", "lo")
        with socket.create_server(("192.0.2.9", 8000)) as server:
            server.settimeout(30)
            answer = threading.Thread(target=greet, args=(server,), daemon=True)
            answer.start()
            assert run(client, "busybox nc -w 10 192.0.2.9 8000 </dev/null").strip() == "hello"
            answer.join(30)
        assert (router.stop().kind, (bundle / "root.img").stat().st_mtime) == ("exit", image.st_mtime)


def greet(server: socket.socket) -> None:
    stream, _ = server.accept()
    with stream:
        stream.sendall(b"hello\n")


class Host:
    """A network namespace with one interface, eth0, at a bridge; sockets that are made `inside` stay there."""

    def __init__(self, bridge: str) -> None:
        self._bridge = bridge

    def __enter__(self) -> Host:
        self._process = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
        own = os.stat("/proc/thread-self/ns/net").st_ino
        deadline = time.monotonic() + 10
        while os.stat(f"/proc/{self._process.pid}/ns/net").st_ino == own:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pid, here = str(self._process.pid), f"to-{self._bridge}"
        ip("link", "add", "name", here, "type", "veth", "peer", "name", "eth0", "netns", pid)
        ip("link", "set", here, "master", self._bridge, "up")
        for name in ("lo", "eth0"):
            self.run("ip", "link", "set", name, "up")
        return self

    def __exit__(self, *_: object) -> None:
        ip("link", "del", "dev", f"to-{self._bridge}")  # a bridge with members stays
        self._process.kill()
        self._process.wait(10)

    def run(self, *words: str) -> str:
        return command("nsenter", "-t", str(self._process.pid), "-n", *words)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        with netkit.entered(Path(f"/proc/{self._process.pid}/ns/net")):
            yield

    def connect(self, address: str, port: int, timeout_s: float = 20) -> socket.socket:
        with self.inside():
            return socket.create_connection((address, port), timeout=timeout_s)

    def listen(self, address: str, port: int) -> socket.socket:
        with self.inside():
            server = socket.create_server((address, port))
        server.settimeout(30)
        return server


def test_router_between_hosts(shelf: Path) -> None:
    bundle = built(shelf, "router-lab")
    with namespace(shelf):
        command(str(bundle / "net"), "up")
        with Host("outside") as outside, Host("inside") as inside, started(bundle, root=False) as router:
            outside.run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
            run(router, "systemctl is-system-running --wait")
            mine = leased(inside, shelf)
            assert name_of_router(inside) == "10.44.0.1"
            inside.run("busybox", "ping", "-c", "2", "-W", "5", "192.0.2.1")
            through(inside, outside)
            with pytest.raises(ConnectionRefusedError):  # let in, and nobody listens
                inside.connect("10.44.0.1", 22)
            with inside.listen(mine, 7001):
                outside.run("ip", "route", "add", "10.44.0.0/24", "via", "192.0.2.2")
                for address, port in (("192.0.2.2", 22), ("192.0.2.2", 53), (mine, 7001)):
                    with pytest.raises(TimeoutError):
                        outside.connect(address, port, timeout_s=1.5)
            with pytest.raises(TimeoutError):
                inside.connect("10.44.0.1", 23, timeout_s=1.5)
        command(str(bundle / "net"), "down")
        assert [line.split()[1] for line in ip("-o", "link").splitlines()] == ["lo:"]


def leased(host: Host, shelf: Path) -> str:
    """The address that the router gives the host; it has that and the route afterwards."""
    script = shelf / "lease"
    script.write_text('#!/bin/sh\n[ "$1" != bound ] || echo "$ip/$mask $router $dns"\n')
    script.chmod(0o755)
    said = host.run("busybox", "udhcpc", "-f", "-n", "-q", "-t", "20", "-T", "1", "-i", "eth0", "-s", str(script))
    address, router, dns = said.split()[-3:]
    assert address.startswith("10.44.0.1") and address.endswith("/24") and router == dns == "10.44.0.1", said
    host.run("ip", "addr", "add", address, "dev", "eth0")
    host.run("ip", "route", "add", "default", "via", router)
    return address.partition("/")[0]


def name_of_router(host: Host) -> str:
    """What the router's DNS says of its own name. Source: RFC 1035 4.1."""
    question = b"".join(bytes([len(part)]) + part for part in (b"router", b"inside", b""))
    with host.inside():
        asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asker:
        asker.settimeout(20)
        asker.sendto(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + question + struct.pack("!2H", 1, 1), ("10.44.0.1", 53))
        answer = asker.recv(512)
    assert answer[:2] == b"\0\7" and answer[6:8] == b"\0\1"
    return socket.inet_ntoa(answer[-4:])


def through(inside: Host, outside: Host) -> None:
    """A stream each way over one connection; the outside sees the router's address."""
    with outside.listen("192.0.2.1", 7000) as server, inside.connect("192.0.2.1", 7000) as sender:
        receiver, (address, _) = server.accept()
        assert address == "192.0.2.2"
        with receiver:
            for source, sink, what in ((sender, receiver, "out"), (receiver, sender, "in")):
                sink.settimeout(60)
                began = time.monotonic()
                pump = threading.Thread(target=source.sendall, args=(bytes(SIZE),), daemon=True)
                pump.start()
                left = SIZE
                while left:
                    block = sink.recv(1 << 16)
                    assert block, f"{left} bytes are missing"
                    left -= len(block)
                pump.join(10)
                print(f"{what}: {SIZE * 8e-6 / (time.monotonic() - began):.0f} Mbit/s")
