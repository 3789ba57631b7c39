"""`jail relay`: what passes and what does not, by frames that a hostile guest might send, in a build with sanitizers.

What single frames may do is in `tests/usernet/test_usernet_uplink.py`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

MODES = ("open", "shut", "replies")
MARK = bytes(12) + b"\x88\xb5" + b"the end"
"""A frame that passes always: EtherType for experiments."""


@dataclass
class Relay:
    """A relay that runs, and the other ends of what it has."""

    process: subprocess.Popen[bytes]
    place: Path
    host: socket.socket

    def uml(self) -> socket.socket:
        """A connection that has been accepted."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.settimeout(10)
        line.connect(str(self.place / "uml"))
        line.send(MARK)
        if self.host.fileno() >= 0:
            assert self.host.recv(100) == MARK
        return line

    def word(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@contextlib.contextmanager
def running(jail: Path, loopback: str = "shut") -> Iterator[Relay]:
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as name, contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(f"{name}/uml")
        listener.listen()
        host, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(host)
        host.settimeout(10)
        process = subprocess.Popen(
            [jail, "relay", str(listener.fileno()), str(its_end.fileno()), loopback], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[listener.fileno(), its_end.fileno()],
            env={"ASAN_OPTIONS": "detect_leaks=0"},
        )  # fmt: skip
        its_end.close()
        relay = Relay(process, Path(name), host)
        try:
            assert relay.word() == b"ready\n"
            yield relay
        finally:
            process.kill()
            process.communicate(timeout=10)


def until_mark(line: socket.socket) -> list[bytes]:
    """The frames that come before it."""
    frames = []
    while (frame := line.recv(70_000)) != MARK:
        assert frame
        frames.append(frame)
    return frames


SOME = st.sampled_from
ADDRESSES_4 = [bytes(map(int, text.split("."))) for text in (
    "127.0.0.1", "127.255.0.9", "0.0.0.0", "10.0.2.2", "10.0.2.3", "10.0.2.15", "255.255.255.255", "192.0.2.7",
)]  # fmt: skip
ADDRESSES_6 = [socket.inet_pton(socket.AF_INET6, text) for text in (
    "::1", "::ffff:127.0.0.1", "::", "fd00::2", "fd00::3", "fe80::1", "ff02::1", "2001:db8::1",
)]  # fmt: skip
PORTS = SOME([0, 22, 53, 67, 547, 5353, 65_535])


@st.composite
def packets_4(draw: st.DrawFn) -> bytes:
    fragment = draw(SOME([0, 0x2000, 0x4000, 9]))
    header = bytes([draw(SOME([0x45, 0x46, 0x4F, 0x40]))]) + bytes(5) + struct.pack("!H", fragment)
    header += bytes([64, draw(SOME([1, 6, 17, 47])), 0, 0]) + bytes([10, 0, 2, 15]) + draw(SOME(ADDRESSES_4))
    return b"\x08\x00" + header + struct.pack("!HH", draw(PORTS), draw(PORTS)) + draw(st.binary(max_size=60))


@st.composite
def packets_6(draw: st.DrawFn) -> bytes:
    header = bytes([0x60] + [0] * 5 + [draw(SOME([6, 17, 58, 0])), 64]) + bytes(16) + draw(SOME(ADDRESSES_6))
    return b"\x86\xdd" + header + struct.pack("!HH", draw(PORTS), draw(PORTS)) + draw(st.binary(max_size=30))


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    rest = draw(st.one_of(packets_4(), packets_6(), st.binary(max_size=100)))
    whole = bytes(12) + rest
    return whole[: draw(st.integers(1, len(whole)))] if draw(st.booleans()) else whole


def leads_to_loopback(frame: bytes) -> bool:
    kind = frame[12:14]
    return (kind == b"\x08\x00" and frame[30] in (0, 127)) or (kind == b"\x86\xdd" and frame[38:46] == bytes(8))


@pytest.mark.parametrize("loopback", MODES)
def test_what_passes_is_whole_and_in_order_and_leads_to_no_loopback(checked_jail: Path, loopback: str) -> None:
    with running(checked_jail, loopback) as relay, relay.uml() as uml:

        @settings(max_examples=60)
        @given(st.lists(frames(), max_size=70), st.lists(frames(), max_size=70))
        def exchange(sent: list[bytes], back: list[bytes]) -> None:
            for one, many in ((relay.host, back), (uml, sent)):
                for frame in many:
                    one.send(frame)
                one.send(MARK)
            assert until_mark(uml) == back
            passed = until_mark(relay.host)
            rest = iter(sent)
            assert all(frame in rest for frame in passed), "in order, and nothing else"
            assert all(len(frame) >= 14 for frame in passed)
            if loopback == "open":
                assert passed == [frame for frame in sent if len(frame) >= 14]
            else:
                assert not any(leads_to_loopback(frame) for frame in passed)

        exchange()
        assert relay.process.poll() is None


def test_a_side_that_does_not_read_loses_nothing_and_stops_nobody(jail: Path) -> None:
    frame = MARK + bytes(8000)
    with running(jail) as relay, relay.uml() as uml:
        uml.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 10_000:
                uml.send(frame)
                sent += 1
        assert 10 < sent < 10_000
        uml.settimeout(10)
        relay.host.send(frame)  # the other way is free
        assert uml.recv(70_000) == frame
        assert [relay.host.recv(70_000) for _ in range(sent)] == [frame] * sent


def test_uml_comes_and_goes(jail: Path) -> None:
    with running(jail) as relay:
        relay.host.send(MARK)  # nobody is there
        for number in range(3):
            with relay.uml() as uml:
                uml.send(MARK + bytes([number]))
                assert relay.host.recv(100) == MARK + bytes([number])
                relay.host.send(MARK)
                assert uml.recv(100) == MARK
        with relay.uml() as old, relay.uml() as new:
            new.send(MARK)
            assert relay.host.recv(100) == MARK
            assert old.recv(100) == b"", "a new one takes the old one's place"


def test_the_end_of_the_other_side_is_told_once_while_uml_is_there(jail: Path) -> None:
    with running(jail) as relay:
        relay.host.close()
        with relay.uml() as uml:
            assert relay.word() == b"lost\n"
            for _ in range(100):
                uml.send(MARK)
        with relay.uml() as uml:
            uml.send(MARK)
            assert relay.process.poll() is None
            relay.process.kill()
            assert relay.word() == b""


def test_it_ends_with_its_reader_and_can_call_little(jail: Path) -> None:
    with running(jail) as relay:
        status = Path(f"/proc/{relay.process.pid}/status").read_text()
        assert "\nSeccomp:\t2\n" in status and "\nNoNewPrivs:\t1\n" in status
        assert relay.process.stdout is not None
        relay.process.stdout.close()
        assert relay.process.wait(10) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "LISTENER HOST LOOPBACK are needed"),
        (("3", "4"), "LISTENER HOST LOOPBACK are needed"),
        (("2", "4", "shut"), "LISTENER 2: not a number from 3"),
        (("3", "x", "shut"), "HOST x: not a number"),
        (("3", "4", "closed"), "LOOPBACK is open, shut or replies"),
        (("3", "4", "shut", "more"), "LOOPBACK is open, shut or replies, and the last"),
        (("3", "4", "shut"), "descriptor 3 is no socket of sequenced packets"),
    ],
)
def test_wrong_words(jail: Path, words: tuple[str, ...], said: str) -> None:
    argv = ["sh", "-c", 'exec "$@" 3</dev/null 4</dev/null', "sh", str(jail), "relay", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 125 and said in done.stderr and len(done.stderr.splitlines()) == 1
