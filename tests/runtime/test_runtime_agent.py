"""The host's side of the agent: lines, end marks, and guests that misbehave (no UML here)."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlbuild.runtime import agent as module
from umlbuild.runtime.agent import Agent, Answer, Lines, Until, parse_line, script_of
from umlbuild.runtime.failures import AgentLost, GuestTimeout
from umlbuild.runtime.mailbox import Mailbox

END = b"0123456789abcdef"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"exited 7 123", Answer("exited", 7, 123)),
        (b"done 7\r", Answer("done", 7)),
        (b"\xff\0junk pong 3", Answer("pong", 3)),
        (b"umlbuild-agent 1 ready 6.1.176", Answer("ready", text="6.1.176")),
        (b"umlbuild-agent 2 ready 6.1", None),
        (b"exited 7 123 4", None),
        (b"exited", None),
        (b"done x", None),
        (b"", None),
    ],
)
def test_lines_of_the_agent(line: bytes, answer: Answer | None) -> None:
    assert parse_line(line) == answer


@given(st.binary(max_size=300))
def test_garbage_does_not_hurt(data: bytes) -> None:
    for line in Lines().feed(data):
        parse_line(line)


@given(st.lists(st.binary(max_size=30)))
def test_lines_however_cut(blocks: list[bytes]) -> None:
    lines = Lines()
    got = [line for block in blocks for line in lines.feed(block)]
    assert got == b"".join(blocks).split(b"\n")[:-1]


def test_a_line_without_end_takes_no_memory() -> None:
    lines = Lines()
    for _ in range(100):
        assert not list(lines.feed(b"x" * 10_000))
    assert len(next(iter(lines.feed(b"\n")))) <= 4096


@given(st.binary(max_size=200), st.data())
def test_end_mark_however_cut(payload: bytes, data: st.DataObject) -> None:
    stream = payload + END + b"behind"
    got = bytearray()
    until = Until(END, got.extend)
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        until.feed(stream[:size])
        stream = stream[size:]
    assert bytes(got) == payload and until.ended


def test_output_is_passed_on_at_once() -> None:
    got = bytearray()
    until = Until(END, got.extend)
    until.feed(b"on\n")
    assert got == b"on\n"
    until.feed(END[:3])
    assert got == b"on\n"
    until.feed(b"x")
    assert got == b"on\n" + END[:3] + b"x"


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=4),
)
def test_words_survive_the_shell(words: list[str]) -> None:
    script = script_of(["printf", "%s\\0", *words], "/", {"A": "it's"})
    done = subprocess.run(["sh"], input=script, capture_output=True, timeout=10, check=True)
    assert done.stdout == b"".join(word.encode() + b"\0" for word in words)


@contextmanager
def guest(behave: Callable[[list[socket.socket]], None], tmp_path: Path) -> Iterator[Agent]:
    """An agent whose guest is a thread of ours."""
    pairs = [socket.socketpair() for _ in range(3)]
    with ExitStack() as stack:
        for ours, theirs in pairs:
            stack.callback(ours.close)
            stack.callback(theirs.close)
        thread = threading.Thread(target=behave, args=([theirs for _, theirs in pairs],))
        thread.start()
        (control, data, errors) = (ours for ours, _ in pairs)
        agent = Agent(control, data, errors, Mailbox(tmp_path, tmp_path / "none"))
        yield agent
        agent.close()
        thread.join(10)


def orderly(lines: list[socket.socket]) -> None:
    """Comes up and obeys."""
    lines[0].sendall(b"\0\xffgarbage\numlbuild-agent 1 ready 6.1\n")
    obey(lines)


def obey(lines: list[socket.socket]) -> None:
    """Answers one exec as the protocol says, with garbage around it, and both streams large."""
    control, data, errors = lines
    verb, number, source, size, _, end = control.recv(4096).split()
    assert (verb, source) == (b"exec", b"line")
    assert len(data.recv(4096)) == int(size)
    writers = [
        threading.Thread(target=line.sendall, args=(content * 4_000_000 + end,))
        for line, content in ((data, b"o"), (errors, b"e"))
    ]
    for writer in writers:
        writer.start()
    control.sendall(b"kernel: oops\nexited " + number + b" 3\nexited 99 4\n")
    for writer in writers:
        writer.join()
    control.sendall(b"done " + number + b"\n")


def test_a_command(tmp_path: Path) -> None:
    with guest(orderly, tmp_path) as agent:
        assert agent.wait_ready(time.monotonic() + 5) and agent.release == "6.1"
        result = agent.run(["true"], timeout_s=30)
    assert (result.status, len(result.stdout), len(result.stderr)) == (3, 4_000_000, 4_000_000)


def test_a_guest_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST_AFTER_S", 0.5)
    seen = bytearray()

    def hang(lines: list[socket.socket]) -> None:
        while block := lines[0].recv(4096):
            seen.extend(block)

    with guest(hang, tmp_path) as agent:
        assert not agent.ping(0.2)
        began = time.monotonic()
        with pytest.raises(AgentLost, match="did not end a command"):
            agent.run("sleep 100", timeout_s=0.3)
        assert time.monotonic() - began < 3
        with pytest.raises(AgentLost):  # and it stays lost
            agent.run("true", timeout_s=5)
    assert b" TERM\n" in seen


def test_a_guest_that_dies(tmp_path: Path) -> None:
    def die(lines: list[socket.socket]) -> None:
        lines[0].recv(4096)
        for line in lines:
            line.close()

    with guest(die, tmp_path) as agent, pytest.raises(AgentLost, match="has ended"):
        agent.run("true", timeout_s=10)


def test_a_guest_that_reboots_can_be_talked_to_again(tmp_path: Path) -> None:
    def reboot(lines: list[socket.socket]) -> None:
        lines[0].recv(4096)
        lines[1].recv(4096)
        orderly(lines)

    with guest(reboot, tmp_path) as agent:
        with pytest.raises(AgentLost, match="rebooted"):
            agent.run("reboot", timeout_s=10)
        assert agent.run("true", timeout_s=10).status == 3


def test_others_wait_no_longer_than_they_wanted(tmp_path: Path) -> None:
    release = threading.Event()

    def slow(lines: list[socket.socket]) -> None:
        release.wait(10)
        obey(lines)

    with guest(slow, tmp_path) as agent:
        first = threading.Thread(target=lambda: agent.run("one", timeout_s=20))
        first.start()
        while not agent._lock.locked():
            time.sleep(0.01)
        with pytest.raises(GuestTimeout, match="two"):
            agent.run("two", timeout_s=0.2)
        release.set()
        first.join(10)


def test_the_agent_does_nothing_unless_asked_for() -> None:
    script = Path(__file__).resolve().parents[2] / "umlbuild" / "launcher" / "guest" / "agent.sh"
    if b"umlbuild.agent" in Path("/proc/cmdline").read_bytes():
        pytest.skip("this is such a guest")
    done = subprocess.run(["sh", str(script)], capture_output=True, timeout=10, check=False, env=dict(os.environ))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
