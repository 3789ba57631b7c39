"""The hub: what its switch decides, what its sockets do, and two machines that meet there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bundles
import pytest
import world
from bundles import started
from hypothesis import given
from hypothesis import strategies as st

from umlbuild.errors import HostError
from umlbuild.runtime import switch
from umlbuild.runtime.hub import MOST_PORTS, QUEUE_FRAMES, Hub
from umlbuild.runtime.machine import Machine
from umlbuild.runtime.switch import AGE_S, MOST, Switch

ALL = bytes([255] * 6)


def mac(number: int) -> bytes:
    return bytes([2]) + number.to_bytes(5, "big")


def frame(to: bytes, sender: bytes, payload: bytes = b"x" * 46) -> bytes:
    return to + sender + b"\x08\x00" + payload


def test_learning() -> None:
    it, ports = Switch(), (1, 2, 3)
    assert it.targets(frame(mac(2), mac(1)), 1, ports, 0) == [2, 3]  # not known yet: to all others
    assert it.targets(frame(mac(1), mac(2)), 2, ports, 1) == [1]
    assert it.targets(frame(mac(2), mac(1)), 1, ports, 2) == [2]
    assert it.targets(frame(ALL, mac(1)), 1, ports, 3) == [2, 3]
    assert it.targets(frame(mac(2), mac(2)), 2, ports, 4) == []  # it is where it came from
    assert it.targets(frame(mac(1), mac(3)), 3, ports, 2 + AGE_S) == [1]
    assert it.targets(frame(mac(1), mac(3)), 3, ports, 3 + AGE_S) == [1, 2]  # too old
    assert it.targets(frame(mac(2), ALL), 1, ports, 5) == [2]
    assert it.targets(frame(ALL, mac(1))[:13], 1, ports, 6) == []
    it.forget(2)
    assert it.targets(frame(mac(2), mac(3)), 3, ports, 7) == [1, 2]


def test_a_guest_that_moves_and_one_that_makes_up_addresses() -> None:
    it, ports = Switch(), (1, 2, 3)
    it.targets(frame(ALL, mac(9)), 1, ports, 0)
    it.targets(frame(ALL, mac(9)), 2, ports, 1)
    assert it.targets(frame(mac(9), mac(1)), 1, ports, 2) == [2]
    for number in range(100, 100 + 3 * MOST):
        it.targets(frame(ALL, mac(number)), 3, ports, 3)
    assert it.targets(frame(mac(9), mac(1)), 1, ports, 4) == [2, 3]  # forgotten, and so to all


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 4), st.floats(0, 1e6))))
def test_no_frame_goes_back_or_to_nobody(rows: list[tuple[bytes, int, float]]) -> None:
    it, ports = Switch(), {1, 2, 4}
    for data, source, now in rows:
        targets = it.targets(data, source, ports, now)
        assert set(targets) <= ports - {source} and len(set(targets)) == len(targets)
        assert len(it._seen) <= switch.MOST


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path."""
    path = Path(tempfile.mkdtemp(prefix="uh-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def joined(hub: Hub) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(str(hub.path))
    line.setblocking(False)
    turns(hub, 2)
    return line


def turns(hub: Hub, count: int) -> None:
    for _ in range(count):
        hub.turn(0.01)


def test_frames_pass(place: Path) -> None:
    with Hub(place / "s") as hub:
        one, two, three = (joined(hub) for _ in range(3))
        one.send(frame(ALL, mac(1)))
        turns(hub, 2)
        assert two.recv(99) == three.recv(99) == frame(ALL, mac(1))
        big = frame(mac(1), mac(2), bytes(65_000))
        two.send(big)
        turns(hub, 2)
        assert one.recv(70_000) == big
        with pytest.raises(BlockingIOError):
            three.recv(99)
        two.close()
        turns(hub, 2)
        assert hub.ports == 2
        for line in (one, three):
            line.close()
    assert list(place.iterdir()) == []


def test_one_that_does_not_read_costs_the_others_nothing(place: Path) -> None:
    with Hub(place / "s") as hub:
        sender, reader, sleeper = (joined(hub) for _ in range(3))
        got = 0
        for number in range(4 * QUEUE_FRAMES):
            sender.send(frame(ALL, mac(1), number.to_bytes(4, "big") + bytes(1000)))
            turns(hub, 1)
            while True:
                try:
                    assert reader.recv(2000)[14:18] == got.to_bytes(4, "big")
                except BlockingIOError:
                    break
                got += 1
        assert got == 4 * QUEUE_FRAMES
        assert 0 < hub.dropped < 4 * QUEUE_FRAMES
        port = hub._ports[3]
        assert len(port.waiting) <= QUEUE_FRAMES and port.size == sum(map(len, port.waiting))
        seen = 0
        for _ in range(3 * QUEUE_FRAMES):  # awake again, it gets what waited
            turns(hub, 1)
            try:
                sleeper.recv(2000)
                seen += 1
            except BlockingIOError:
                break
        assert seen == 4 * QUEUE_FRAMES - hub.dropped
        for line in (sender, reader, sleeper):
            line.close()


def test_ports_are_limited(place: Path) -> None:
    with Hub(place / "s") as hub:
        lines = [joined(hub) for _ in range(MOST_PORTS + 3)]
        assert hub.ports == MOST_PORTS
        assert lines[-1].recv(9) == b""
        for line in lines:
            line.close()


def test_what_is_there_already(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(HostError, match="is no socket"):
        Hub(place / "file")
    with Hub(place / "s"), pytest.raises(HostError, match="another hub listens there"):
        Hub(place / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(place / "s"))
    Hub(place / "s").close()  # of a hub that was killed
    with pytest.raises(HostError, match="cannot listen there"):
        Hub(place / "no" / "s")
    with pytest.raises(HostError, match="longer than the 107 bytes"):
        Hub(place / ("x" * 100))


@pytest.mark.boot
@pytest.mark.build
@pytest.mark.timeout(1800)
@pytest.mark.skipif(bool(world.why_not()), reason=world.why_not())
def test_two_machines(place: Path, tmp_path: Path) -> None:
    """They get addresses, the outside and each other; and all ends with the hub."""
    path = place / "hub.sock"
    network = {"transport": {"kind": "bess", "dst": str(path)}}
    names = ("left", "right")
    built = {
        name: bundles.build(bundles.recipe(name, bundles.PREBUILT, "busybox", "ext4", network=[network]), tmp_path)
        for name in names
    }

    def body() -> None:
        world.serve(world.OUTSIDE, 80)
        argv = [sys.executable, "-m", "umlbuild.cli", "hub", str(path), "--uplink", "--user", "root"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as hub:
            try:
                assert hub.stdout is not None
                assert hub.stdout.readline() == f"hub: listening at {path}\n"
                meet(built["left"], built["right"])
                home = next(Path("/proc").joinpath(str(pid)) for pid in children_of(hub.pid))
                pids = world.processes_of(Path(os.readlink(home / "cwd")))
                assert any("slirp4netns" in words for words in pids.values())
                hub.send_signal(signal.SIGTERM)
                assert hub.wait(20) == 143
                assert world.all_gone(pids) == [] and not path.exists()
            finally:
                hub.kill()

    world.inside(body)


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def meet(left: Path, right: Path) -> None:
    with started(left) as one, started(right) as other:
        addresses = [address_of(each) for each in (one, other)]
        assert len(set(addresses)) == 2
        for each in (one, other):
            assert each.exec(world.get(world.NAME), timeout_s=30).stdout == world.PAGE
        one.exec(world.SERVER, timeout_s=30)
        deadline = time.monotonic() + 20
        while (got := other.exec(world.get(addresses[0]), timeout_s=30).stdout) != b"guest\n":
            assert time.monotonic() < deadline, got
            time.sleep(0.3)


def address_of(each: Machine) -> str:
    said = each.exec("ip -4 addr show vec0", timeout_s=30).stdout.decode()
    found = re.search(r"inet (10\.0\.2\.\d+)/24", said)
    assert found is not None, said
    return found[1]
