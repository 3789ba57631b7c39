"""mconsole's datagrams, and the client against a console that lies, is slow or silent."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlbuild.runtime import mconsole
from umlbuild.runtime.mconsole import (
    Kind,
    MconsoleError,
    Notices,
    Notification,
    Reply,
    parse_notification,
    parse_reply,
    request_of,
)


@given(st.binary(max_size=600))
def test_any_bytes_are_parsed_or_refused(packet: bytes) -> None:
    reply = parse_reply(packet)
    assert reply is None or len(reply.text) <= len(packet) - 12
    parse_notification(packet)


@given(st.integers(-200, 1), st.booleans(), st.binary(max_size=500).filter(lambda text: not text.endswith(b"\0")))
def test_reply_comes_back(error: int, more: bool, text: bytes) -> None:
    packet = struct.pack("=iII", error, more, len(text) + 1) + text + b"\0"
    assert parse_reply(packet) == Reply(error, more, text)
    assert parse_reply(packet[:-2]) is None or not text  # cut off


@given(st.sampled_from(Kind), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=99))
def test_notification_comes_back(kind: Kind, text: str) -> None:
    data = text.encode() + b"\0"
    packet = struct.pack("=IIiI", mconsole.MAGIC, 2, kind, len(data)) + data
    assert parse_notification(packet) == Notification(kind, text)
    assert parse_notification(b"\0" + packet) is None


def test_long_commands_are_refused() -> None:
    assert request_of("x" * 511).endswith(b"x")
    with pytest.raises(MconsoleError, match="512 bytes"):
        request_of("x" * 512)


def home(place: Path) -> Path:
    """A machine's private directory, as the launcher makes it; returns where UML's socket is to be."""
    (place / "box").mkdir()
    (place / "u" / "m").mkdir(parents=True)
    return place / "u" / "m" / "mconsole"


@contextlib.contextmanager
def console(path: Path, answers: Callable[[bytes], list[bytes]]) -> Iterator[None]:
    """A fake UML that answers one request with these datagrams."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(5)

        def serve() -> None:
            request, client = server.recvfrom(4096)
            for packet in answers(request):
                server.sendto(packet, client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def packet(error: int, more: int, text: bytes) -> bytes:
    return struct.pack("=iII", error, more, len(text) + 1) + text + b"\0"


def test_pieces_are_joined_and_garbage_is_skipped(tmp_path: Path) -> None:
    path = home(tmp_path)
    with console(path, lambda _: [packet(0, 1, b"one "), b"junk", packet(0, 0, b"two")]):
        assert mconsole.ask(path, "help") == "one two"
    assert not list((tmp_path / "box").iterdir())  # our own socket is gone


def test_an_error_is_raised(tmp_path: Path) -> None:
    path = home(tmp_path)
    with console(path, lambda _: [packet(1, 0, b"Unknown command\n")]), pytest.raises(MconsoleError) as caught:
        mconsole.ask(path, "frobnicate")
    assert caught.value.message == "mconsole frobnicate: Unknown command"


def test_silence_has_an_end(tmp_path: Path) -> None:
    path = home(tmp_path)
    with console(path, lambda _: []), pytest.raises(MconsoleError, match=r"no answer within 0\.3 s"):
        mconsole.ask(path, "version", 0.3)
    with pytest.raises(MconsoleError, match="No such file"):
        mconsole.ask(path.with_name("absent"), "version", 0.3)


def test_the_sandbox_is_entered_by_its_link(tmp_path: Path) -> None:
    """The one link that is followed is the launcher's own: /proc/PID/root and what is inside."""
    inside = home(tmp_path)
    (tmp_path / "host").mkdir()
    outside = home(tmp_path / "host")
    outside.parent.rmdir()
    outside.parent.parent.rmdir()
    outside.parent.parent.symlink_to(f"/proc/self/root{inside.parent.parent}")
    with console(inside, lambda _: [packet(0, 0, b"fine")]):
        assert mconsole.ask(outside, "help") == "fine"


@pytest.mark.parametrize("link", ["u/m", "u/m/mconsole"])
def test_links_of_a_hostile_guest_are_not_followed(tmp_path: Path, link: str) -> None:
    """What is in `u` is the guest's; its links shall not lead our words to another socket of this host."""
    path = home(tmp_path)
    victim = tmp_path / "victim"
    victim.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(victim / "mconsole"))
        other.setblocking(False)
        if link == "u/m":
            path.parent.rmdir()
            path.parent.symlink_to(victim)
        else:
            path.symlink_to(victim / "mconsole")
        with pytest.raises(MconsoleError):
            mconsole.ask(path, "version", 0.3)
        with pytest.raises(BlockingIOError):
            other.recv(1)


def test_something_else_than_a_socket(tmp_path: Path) -> None:
    path = home(tmp_path)
    path.write_text("")
    with pytest.raises(MconsoleError, match="socket"):
        mconsole.ask(path, "version", 0.3)


def test_notices_drop_garbage(tmp_path: Path) -> None:
    notices = Notices(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for data in (b"junk", struct.pack("=IIiI", mconsole.MAGIC, 2, 3, 6) + b"ready\0"):
            sender.sendto(data, str(tmp_path / "n"))
    assert notices.read() == Notification(Kind.USER, "ready")
    assert notices.read() is None
    notices.close()
    assert not list(tmp_path.iterdir())
