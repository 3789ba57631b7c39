"""The program between UML and slirp4netns by itself, with a slirp4netns that gives back what it gets."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bundles
import pytest

from umlbuild.plan.launch import part

pytestmark = pytest.mark.skipif(shutil.which("perl") is None, reason="perl is not installed")

ECHO = """
import socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen()
line = listener.accept()[0]
while frame := line.recv(70000):
    line.send(frame)
"""
START_S = 10


@contextlib.contextmanager
def running(*command: str, loopback: str = "shut", forwards: str = "") -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Its directory, and the process."""
    with tempfile.TemporaryDirectory(prefix="up-", dir="/tmp") as name:
        home = Path(name)
        (home / "slirp").mkdir()
        words = command or (sys.executable, "-c", ECHO, f"{home}/slirp/frames")
        process = subprocess.Popen(
            ["perl", "-e", part("uplinks/user.pl"), "demo", "0", name, loopback, forwards,
             bundles.jail(), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + START_S
            while not (home / "ready").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            yield home, process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=10)


def uml(home: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.settimeout(10)
    line.connect(str(home / "uml"))
    return line


TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
SYN, ACK = 2, 16


def segment(port: int, from_port: int = 1000, flags: int = SYN) -> bytes:
    """The start of a TCP segment (or UDP datagram)."""
    return struct.pack("!HH9xB6x", from_port, port, flags)


def frame4(
    to: str, protocol: int = TCP, payload: bytes = bytes(20), *, source: str = "10.0.2.15", fragment: int = 0
) -> bytes:
    header = struct.pack("!B5xHxBxx4s4s", 0x45, fragment, protocol, socket.inet_aton(source), socket.inet_aton(to))
    return bytes(12) + b"\x08\x00" + header + payload


def frame6(to: str, protocol: int = TCP, payload: bytes = bytes(20)) -> bytes:
    header = struct.pack("!B5xBx16x16s", 0x60, protocol, socket.inet_pton(socket.AF_INET6, to))
    return bytes(12) + b"\x86\xdd" + header + payload


PASS = [
    frame4("192.0.2.1"), frame4("10.0.2.3"), frame4("255.255.255.255"), frame4("126.255.255.255"), frame4("128.0.0.0"),
    frame6("2001:db8::1"), frame6("fd00:0:0:1::3"), frame6("ff02::1", ICMP6), frame6("64:ff9b::1"),
    bytes(12) + b"\x08\x06" + bytes(28), bytes(14), frame4("192.0.2.1") + bytes(9000),
]  # fmt: skip
DROPPED = [
    frame4("127.0.0.1"), frame4("127.255.255.255"), frame4("0.0.0.0"), frame4("0.0.0.5"), frame4("192.0.2.1")[:33],
    frame6("::1"), frame6("::"), frame6("::ffff:127.0.0.1"), frame6("::127.0.0.1"), frame6("2001:db8::1")[:53],
    b"short",
]  # fmt: skip


def test_frames_to_the_hosts_loopback_are_dropped() -> None:
    with running() as (home, _), uml(home) as line:
        for frame in (*DROPPED, *PASS):
            line.send(frame)
        assert [line.recv(70000) for _ in PASS] == PASS


ONLY_REPLIES = {
    True: [
        frame4("10.0.2.2", ICMP), frame4("10.0.2.2", UDP, segment(67)), frame4("255.255.255.255", UDP, segment(67)),
        frame4("10.0.2.3", UDP, segment(53)), frame4("10.0.2.3", TCP, segment(53)),
        frame4("10.0.2.2", TCP, segment(9, flags=SYN | ACK)), frame4("10.0.2.2", TCP, segment(9, flags=ACK)),
        frame4("192.0.2.1", UDP, segment(9)), frame4("192.0.2.1", TCP, segment(9)), frame4("10.0.3.2", TCP, segment(9)),
        frame6("fd00::2", ICMP6), frame6("ff02::2", ICMP6), frame6("fd00::3", UDP, segment(53)),
        frame6("ff02::1:2", UDP, segment(547)), frame6("2001:db8::1", TCP, segment(9)), frame6("fd00:0:0:1::2", TCP),
    ],
    False: [
        frame4("10.0.2.2", TCP, segment(9)), frame4("10.0.2.77", TCP, segment(9, flags=ACK)),
        frame4("10.0.2.2", UDP, segment(9)), frame4("10.0.2.77", UDP, segment(67)), frame4("10.0.2.3", UDP, segment(9)),
        frame4("255.255.255.255", UDP, segment(9)), frame4("10.0.2.255", UDP, segment(9)),
        frame4("10.0.2.2", TCP, segment(9, flags=ACK), fragment=0x2000), frame4("10.0.2.2", 132, segment(67)),
        frame4("10.0.2.3", UDP, segment(53), fragment=1), frame4("10.0.2.2", TCP, segment(9, flags=ACK)[:12]),
        frame4("127.0.0.1"), frame6("::1"), frame6("fd00::2", TCP, segment(53)), frame6("fd00::3", UDP, segment(9)),
        frame6("fe80::2", TCP, segment(9)), frame6("fd00::2", 0, segment(9)), frame6("ff02::1", UDP, segment(9)),
    ],
}  # fmt: skip


def test_only_replies_reach_the_loopback() -> None:
    with running(loopback="replies") as (home, _), uml(home) as line:
        for frame in (*ONLY_REPLIES[False], *ONLY_REPLIES[True]):
            line.send(frame)
        assert [line.recv(70000) for _ in ONLY_REPLIES[True]] == ONLY_REPLIES[True]
        # What was echoed counts as coming from slirp4netns: a datagram of the host's port 1000 for the guest's 53.
        question = frame4("192.0.2.9", UDP, segment(53), source="10.0.2.2")
        line.send(question)
        assert line.recv(70000) == question
        answer = frame4("10.0.2.2", UDP, segment(1000, 53))
        wrong = (frame4("10.0.2.2", UDP, segment(1001, 53)), frame4("10.0.2.2", UDP, segment(1000, 54)))
        for frame in (*wrong, answer):
            line.send(frame)
        assert line.recv(70000) == answer


def test_all_frames_pass_when_the_recipe_says_so() -> None:
    with running(loopback="open") as (home, _), uml(home) as line:
        for frame in DROPPED[:-1]:
            line.send(frame)
        assert [line.recv(70000) for _ in DROPPED[:-1]] == DROPPED[:-1]


def test_no_frame_is_lost_when_a_side_is_slow() -> None:
    """More than all sockets hold: each side waits for the other."""
    with running() as (home, _), uml(home) as line:
        frames = [frame4("192.0.2.1") + bytes(8000) + number.to_bytes(4, "big") for number in range(300)]
        line.setblocking(False)
        got: list[bytes] = []
        todo = list(frames)
        deadline = time.monotonic() + 30
        while todo and time.monotonic() < deadline:
            try:
                line.send(todo[0])
                todo.pop(0)
            except BlockingIOError:
                line.settimeout(10)
                got.append(line.recv(70000))
                line.setblocking(False)
        line.settimeout(10)
        while len(got) < len(frames):
            got.append(line.recv(70000))
        assert got == frames


def test_uml_comes_again() -> None:
    with running() as (home, _):
        for _ in range(20):
            with uml(home) as line:
                line.send(PASS[0])
                assert line.recv(70000) == PASS[0]
        # The newest is the one: a UML that restarts itself keeps its old descriptors.
        with uml(home) as old, uml(home) as line:
            line.send(PASS[1])
            assert line.recv(70000) == PASS[1]
            assert old.recv(70000) == b""


def test_the_end_of_slirp4netns_is_told_once() -> None:
    with running() as (home, process), uml(home) as line:
        line.send(PASS[0])
        assert line.recv(70000) == PASS[0]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert process.stderr is not None
        assert process.stderr.readline() == "demo: vec0: slirp4netns has ended, and with it the network\n"
        for _ in range(100):
            line.send(PASS[0])  # swallowed: UML must not stall
        assert process.poll() is None
        with uml(home) as again:
            again.send(PASS[0])
        os.kill(process.pid, signal.SIGKILL)
        assert process.stderr.read() == ""


@pytest.mark.parametrize(("command", "why"), [
    (("sh", "-c", "echo no such thing >&2; exit 3"), "slirp4netns cannot be started: no such thing\n"),
    (("/nonexistent",), "slirp4netns cannot be started: /nonexistent: No such file or directory\n"),
])  # fmt: skip
def test_slirp4netns_that_does_not_start(command: tuple[str, ...], why: str) -> None:
    with running(*command) as (home, process):
        assert process.wait(START_S) == 1
        assert (home / "why").read_text() == why
        assert not (home / "ready").exists()


def test_a_udp_port_that_is_in_use() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind(("127.0.0.1", 0))
        port = line.getsockname()[1]
        with running(forwards=f"udp:127.0.0.1:{port}:10.0.2.15:53") as (home, process):
            assert process.wait(START_S) == 1
            assert (home / "why").read_text() == f"taken udp 127.0.0.1 {port}\n"
