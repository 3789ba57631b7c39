"""The host's side of the guest's agent; its protocol is written down at the top of launcher/guest/agent.sh.

Three stream sockets stand for the guest's serial lines: control, data (to the guest: short scripts; from it:
stdout), errors (stderr). One command at a time; a lock keeps others waiting. No threads: whoever calls also
moves the bytes, so an abandoned call leaves nothing running. What the guest says is not trusted: garbage is
ignored, lines are bounded, and every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import selectors
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import IO

from umlbuild.runtime.failures import AgentLost, GuestTimeout
from umlbuild.runtime.mailbox import Mailbox

Sink = Callable[[bytes], None]

KILL_AFTER_S = 3.0
"""Between TERM and KILL for a command that took too long."""
LINGER_S = 1.0
"""How long background processes of an ended command may go on writing to its streams."""
LOST_AFTER_S = 15.0
"""How long the agent may take to end a command that was killed, before it counts as lost."""
LINE_BYTES = 2048
"""Scripts up to this go over the serial line, longer ones and all input by the mailbox."""
_LINE_LIMIT = 4096
_BLOCK = 65536
_TICK_S = 0.2

_ANSWER = re.compile(rb"(exited|done|busy|pong|poweroff) ([0-9]{1,18})(?: ([0-9]{1,3}))?")
_READY = re.compile(rb"umlbuild-agent 1 ready ([!-~]{1,64})")


@dataclass(frozen=True)
class Answer:
    """One line of the agent about request `id`; `ready` has none, and the kernel's release as its text."""

    verb: str
    id: int = 0
    status: int = 0
    text: str = ""


def parse_line(line: bytes) -> Answer | None:
    """A line of the control channel, None for garbage (before a known line it is skipped, too)."""
    line = line.rstrip(b"\r\n")
    if match := _READY.search(line):
        return Answer("ready", text=match[1].decode()) if match.end() == len(line) else None
    if (match := _ANSWER.search(line)) is None or match.end() != len(line):
        return None
    return Answer(match[1].decode(), int(match[2]), int(match[3] or 0))


class Lines:
    """Cuts a stream into lines; one that is too long is dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, block: bytes) -> Iterator[bytes]:
        """The lines that are complete now."""
        *lines, rest = (self._rest + block).split(b"\n")
        self._rest = rest[-_LINE_LIMIT:]
        yield from lines


class Until:
    """Passes a stream on to a sink up to an end mark, however the blocks are cut."""

    def __init__(self, end: bytes, sink: Sink) -> None:
        self._end = end
        self._sink = sink
        self._held = b""
        self.ended = False

    def feed(self, block: bytes) -> None:
        """Take the next bytes; what comes after the mark is dropped."""
        if self.ended:
            return
        data = self._held + block
        at = data.find(self._end)
        if at >= 0:
            self.ended, out, self._held = True, data[:at], b""
        else:
            # Only what may be the beginning of the mark is held back: output is to be seen at once.
            keep = min(len(data), len(self._end) - 1)
            while keep and not self._end.startswith(data[-keep:]):
                keep -= 1
            out, self._held = data[: len(data) - keep], data[len(data) - keep :]
        if out:
            self._sink(out)


@dataclass(frozen=True)
class Result:
    """What a command in the guest did."""

    status: int
    """Its exit status, 128+n if signal n ended it."""
    stdout: bytes
    stderr: bytes

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == 0


def script_of(command: Sequence[str] | str, cwd: str | None, env: Mapping[str, str] | None) -> bytes:
    """The shell script that stands for a command (argv, or text for sh -c) in a place and an environment."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in (env or {}).items()]
    for name in env or {}:
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name), name
    lines.append(f"cd {shlex.quote(cwd or '/')} || exit 125")
    if isinstance(command, str):
        lines.append(f"exec sh -c {shlex.quote(command)}")
    else:
        lines.append(f"exec {shlex.join(command)}")
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


class _Job:
    """One command under way."""

    def __init__(self, number: int, stdout: Sink, stderr: Sink) -> None:
        self.end = secrets.token_hex(16)
        self.id = number
        self.out = Until(self.end.encode(), stdout)
        self.err = Until(self.end.encode(), stderr)
        self.status: int | None = None
        self.exited_at = 0.0
        self.done = False
        self.busy = False
        self.restarted = False
        self.begun = False
        """Whether the agent may know of it."""
        self.to_send = b""

    def take(self, answer: Answer) -> None:
        if answer.id != self.id:
            return
        if answer.verb == "exited":
            self.status, self.exited_at = answer.status, time.monotonic()
        elif answer.verb == "done":
            self.done = True
        elif answer.verb == "busy":
            self.busy = True

    @property
    def complete(self) -> bool:
        return self.done and self.out.ended and self.err.ended and self.status is not None


class Agent:
    """Talks to the agent of one machine. `alive` tells whether the machine still runs."""

    def __init__(
        self,
        control: socket.socket,
        data: socket.socket,
        errors: socket.socket,
        mailbox: Mailbox,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._control, self._data, self._errors = control, data, errors
        self._mailbox = mailbox
        self._alive = alive
        self._lines = Lines()
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._lost = ""
        self.release = ""
        """The guest's kernel release, once it is ready."""
        for line in (control, data, errors):
            line.setblocking(False)

    @property
    def is_lost(self) -> bool:
        """Whether nothing more can be asked of it."""
        return bool(self._lost)

    def close(self) -> None:
        """Let go of the lines."""
        self._lost = self._lost or "it was closed"
        for line in (self._control, self._data, self._errors):
            line.close()

    def wait_ready(self, deadline: float) -> bool:
        """Whether the agent announced itself before `deadline` (time.monotonic)."""
        with self._lock:
            while not self.release and not self._lost and self._alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._step(None, min(left, _TICK_S))
        return bool(self.release)

    def ping(self, timeout_s: float) -> bool:
        """Whether the agent answers. While another thread's command runs, this waits for its turn."""
        return self._lock.acquire(timeout=timeout_s) and self._short("ping", "pong", timeout_s)

    def power_off(self, timeout_s: float) -> bool:
        """Ask the guest to power itself off; whether the agent (as far as can be known) took the order."""
        if self._lock.acquire(blocking=False):
            return self._short("poweroff", "poweroff", timeout_s)
        try:  # somebody's command runs and reads the answers
            self._send_control("poweroff", b"poweroff 0\n")
        except AgentLost:
            return False
        return True

    def run(
        self,
        command: Sequence[str] | str,
        *,
        timeout_s: float,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: IO[bytes] | None = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Run a command: argv, or text for a shell. With sinks the output goes there, and the Result has none.

        `stdin` is a file that can seek. `cancelled` is asked now and then; true ends the command.

        Raises: GuestTimeout (the command was ended), AgentLost (also when the machine ends meanwhile).
        """
        out, err = bytearray(), bytearray()
        deadline = time.monotonic() + timeout_s
        doing = command if isinstance(command, str) else shlex.join(command)
        with self._turn(doing, deadline, command, timeout_s):
            job = _Job(next(self._numbers), on_stdout or out.extend, on_stderr or err.extend)
            script = script_of(command, cwd, env)
            try:
                if stdin is None and len(script) <= LINE_BYTES:
                    job.to_send = script
                    request = f"exec {job.id} line {len(script)} - {job.end}\n"
                    in_time = self._drive(doing, job, request, deadline, cancelled)
                else:
                    with self._mailbox.holding(script, stdin) as (disk, size):
                        request = f"exec {job.id} {disk} {len(script)} {size} {job.end}\n"
                        in_time = self._drive(doing, job, request, deadline, cancelled)
            except BaseException:
                if job.begun and not job.complete and not job.restarted:
                    self._lost = self._lost or "a command was abandoned half-way"
                raise
        assert job.status is not None
        if not in_time:
            raise GuestTimeout(command, timeout_s, bytes(out), bytes(err))
        return Result(job.status, bytes(out), bytes(err))

    @contextlib.contextmanager
    def _turn(
        self, doing: str, deadline: float, command: Sequence[str] | str, timeout_s: float
    ) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise GuestTimeout(command, timeout_s, b"", b"")
        try:
            if self._lost:
                raise AgentLost(doing, self._lost)
            yield
        finally:
            self._lock.release()

    def _drive(
        self, doing: str, job: _Job, request: str, deadline: float, cancelled: Callable[[], bool]
    ) -> bool:
        """Move bytes until the command is over; False if it had to be ended."""
        job.begun = True
        self._send_control(doing, request.encode())
        kills: list[tuple[float, str]] = []  # what is still to come once time is over
        in_time, dropped, last = True, False, float("inf")
        while not job.complete:
            now = time.monotonic()
            if in_time and (now >= deadline or cancelled()):
                in_time = False
                kills = [(now, "TERM"), (now + KILL_AFTER_S, "KILL"), (now + KILL_AFTER_S + 1, "KILL")]
                last = now + LOST_AFTER_S
            if kills and now >= kills[0][0]:
                self._send_control(doing, f"kill {job.id} {kills.pop(0)[1]}\n".encode())
            exited = job.status is not None and now - job.exited_at > LINGER_S
            if exited and not dropped and not job.complete and not self._pending():
                dropped = True
                self._send_control(doing, f"drop {job.id}\n".encode())
                last = min(last, now + LOST_AFTER_S)
            if now >= last:
                self._lost = "it did not end a command that was killed"
            if job.busy:
                self._lost = "it is busy with a command that nobody here started"
            self._step(job, _TICK_S)
            if self._lost or job.restarted:
                raise AgentLost(doing, self._lost or "the guest was rebooted")
        return in_time

    def _pending(self) -> bool:
        """Whether output has arrived that was not read yet."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._data, selectors.EVENT_READ)
            selector.register(self._errors, selectors.EVENT_READ)
            return bool(selector.select(0))

    def _short(self, verb: str, answer: str, timeout_s: float) -> bool:
        """A request without streams; the caller has taken the lock, it is released here."""
        deadline = time.monotonic() + timeout_s
        try:
            number = next(self._numbers)
            if self._lost:
                return False
            self._send_control(verb, f"{verb} {number}\n".encode())
            while not self._lost and (left := deadline - time.monotonic()) > 0:
                for got in self._step(None, min(left, _TICK_S)):
                    if got.verb == answer and got.id == number:
                        return True
        except AgentLost:
            return False
        finally:
            self._lock.release()
        return False

    def _send_control(self, doing: str, line: bytes) -> None:
        # Lines are short and the agent reads them even while a command runs: if the socket's buffer (200 KiB) is
        # full, nobody is reading any more.
        try:
            sent = self._control.send(line)
        except OSError as problem:
            self._lost = f"its line is closed ({problem.strerror or problem})"
            raise AgentLost(doing, self._lost) from None
        if sent != len(line):
            self._lost = "it does not read its line"

    def _step(self, job: _Job | None, timeout_s: float) -> list[Answer]:
        """Wait a little for something to read or to write, and do that."""
        answers: list[Answer] = []
        with selectors.DefaultSelector() as selector:
            events = selectors.EVENT_READ
            selector.register(self._control, events)
            selector.register(self._errors, events)
            if job is not None and job.to_send:
                events |= selectors.EVENT_WRITE
            selector.register(self._data, events)
            ready = selector.select(timeout_s)
        for key, mask in ready:
            if mask & selectors.EVENT_READ and (block := self._receive(key.fileobj)):
                if key.fileobj is self._control:
                    answers += self._answers(job, block)
                elif job is not None:
                    (job.out if key.fileobj is self._data else job.err).feed(block)
            if mask & selectors.EVENT_WRITE and job is not None:
                with contextlib.suppress(OSError):
                    job.to_send = job.to_send[self._data.send(job.to_send) :]
        if not ready and not self._alive():
            self._lost = "the machine has ended"
        return answers

    def _receive(self, line: object) -> bytes:
        assert isinstance(line, socket.socket)
        try:
            block = line.recv(_BLOCK)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            block = b""
        if not block:
            self._lost = "the machine has ended"
        return block

    def _answers(self, job: _Job | None, block: bytes) -> list[Answer]:
        answers = [answer for line in self._lines.feed(block) if (answer := parse_line(line))]
        for answer in answers:
            if answer.verb == "ready":
                if job is not None:
                    job.restarted = True  # all of its requests are forgotten; new ones are fine
                self.release = answer.text
            elif job is not None:
                job.take(answer)
        return answers
