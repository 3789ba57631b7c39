"""One running machine: started through its bundle's launcher, watched, spoken to, ended; nothing of it stays behind.

A launcher lives longer than a call, so it is not started by `umlbuild.host.process`. It gets
descriptors of its own (UML makes what it is given non-blocking), sits in a session of its own, and ends the machine
when its stdin, a pipe that only we hold, reaches its end: so the machine also ends when we are killed. That works
from any thread, where the parent-death signal would fire when the starting thread ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from umlbuild.errors import HostError
from umlbuild.runtime import mconsole, tree
from umlbuild.runtime.agent import Agent, Result, Sink
from umlbuild.runtime.console import Console
from umlbuild.runtime.failures import AgentLost, GuestFailed, MachineEnded, MachineError, NotUp
from umlbuild.runtime.mailbox import Mailbox
from umlbuild.runtime.mconsole import Kind, MconsoleError, Notices

_FIRST_FD = 20
"""The launcher keeps 0 to 9 for itself."""
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_.-")
_COPY_S = 600.0
_JANITOR_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """How a machine ended."""

    kind: Literal["exit", "timeout", "refused", "panic", "killed"]
    status: int
    """The launcher's exit status: the guest's own for "exit"."""

    def __str__(self) -> str:
        words = {
            "exit": f"powered off with status {self.status}",
            "timeout": "its time was over",
            "refused": "it could not start",
            "panic": "its kernel panicked",
            "killed": f"killed ({self.status})",
        }
        return words[self.kind]


def outcome_of(status: int) -> Outcome:
    """What a launcher's exit status means (negative: ended by that signal)."""
    if status < 0:
        return Outcome("killed", 128 - status)
    if status <= 123:
        return Outcome("exit", status)
    kinds: Mapping[int, Literal["timeout", "refused", "panic"]] = {124: "timeout", 125: "refused", 126: "panic"}
    return Outcome(kinds.get(status, "killed"), status)


def runtime_base() -> Path:
    """Where sockets and private directories go: $XDG_RUNTIME_DIR if UML can live with its name, else /tmp."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/") and len(given) <= 40 and _PLAIN.issuperset(given) and os.access(given, os.W_OK):
        return Path(given)
    return Path("/tmp")


class Machine:
    """A machine; make one with `start`. A context manager: leaving it powers the machine off, or ends it when
    an exception leaves."""

    def __init__(
        self,
        *,
        name: str,
        process: subprocess.Popen[bytes],
        home: Path,
        lifeline: int,
        agent_lines: Sequence[socket.socket],
        notices: Notices,
        console: Console,
        reboot: bool,
    ) -> None:
        self.name = name
        self.console = console
        self._process = process
        self._home = home
        self._lifeline = lifeline
        self._notices = notices
        self._reboot = reboot
        self._closed = False
        control, data, errors = agent_lines
        self._mailbox = Mailbox(home, self.mconsole_path)
        self.agent = Agent(control, data, errors, self._mailbox, alive=self.is_running)
        self.panic = ""
        """The kernel's last words, if it sent a notification of its panic."""
        self._up = False

    @classmethod
    def start(
        cls,
        bundle: Path,
        *,
        memory: str | None = None,
        ephemeral: bool | None = None,
        cow: Path | None = None,
        name: str | None = None,
        timeout_s: int | None = None,
        reboot: bool = False,
        allow_root: bool = False,
        arguments: Sequence[str] = (),
        options: Sequence[str] = (),
        descriptors: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        on_console: Callable[[bytes], None] | None = None,
    ) -> Machine:
        """Start the machine of a bundle; it boots while this returns.

        `ephemeral` and `cow` as the launcher's options (None: what the bundle says); `timeout_s` is for its whole
        life; `reboot`: a reboot of the guest restarts it instead of ending it; `arguments`: more kernel arguments;
        `options`: more of the launcher's; `descriptors`: open ones that it inherits by their numbers, for transports;
        `on_console` is handed all that the guest's terminal and kernel say, from a thread.

        Raises: HostError if the bundle has no launcher that can be executed.
        """
        launcher = bundle.resolve() / "run"
        if not os.access(launcher, os.X_OK):
            raise HostError(f"{bundle}: is not a bundle: it has no launcher `run`", "build it: doit build recipe=…")
        options = ["--lifeline", *options]
        for option, value in (("--memory", memory), ("--cow", cow), ("--name", name), ("--timeout", timeout_s)):
            options += [option, str(value)] if value is not None else []
        options += ["--ephemeral"] * bool(ephemeral) + ["--no-reboot"] * (not reboot)
        options += ["--allow-root"] * allow_root
        home = Path(tempfile.mkdtemp(prefix="umlm-", dir=runtime_base())).resolve()
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, home, ignore_errors=True)
            notices = Notices(home / "notify")
            undo.callback(notices.close)
            lines, theirs = _lines(undo)
            alive_read, lifeline = os.pipe()
            undo.callback(os.close, lifeline)
            out_read, out_write = os.pipe()
            err_read, err_write = os.pipe()
            for fd in theirs:
                options += ["--agent", str(fd)]
            try:
                process = subprocess.Popen(
                    [
                        str(launcher), "--runtime", str(home), "--notify", str(home / "notify"),
                        *options, "--", *arguments,
                    ],
                    stdin=alive_read, stdout=out_write, stderr=err_write, pass_fds=[*theirs, *descriptors], cwd="/",
                    env=dict(os.environ if environment is None else environment), start_new_session=True,
                )  # fmt: skip
            except OSError as problem:
                os.close(out_read)
                os.close(err_read)
                raise HostError(f"{launcher}: cannot be started: {problem.strerror}") from problem
            finally:
                for fd in (alive_read, out_write, err_write, *theirs):
                    os.close(fd)
            undo.pop_all()
        console = Console([out_read, err_read], on_console)
        return cls(
            name=name or bundle.name, process=process, home=home, lifeline=lifeline, agent_lines=lines,
            notices=notices, console=console, reboot=reboot,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.is_running():
                self.stop()
        finally:
            self.close()

    # --- what it does -----------------------------------------------------------------------------------

    def is_running(self) -> bool:
        """Whether its launcher still lives (it outlives the machine by the cleaning up)."""
        return self._process.poll() is None

    def outcome(self, timeout_s: float = 0) -> Outcome | None:
        """How it ended; None if it is still running after `timeout_s`."""
        try:
            return outcome_of(self._process.wait(timeout=max(timeout_s, 0.001)))
        except subprocess.TimeoutExpired:
            return None

    @property
    def pid(self) -> int:
        """Of the launcher; SIGTERM to it pulls the plug."""
        return self._process.pid

    @property
    def mconsole_path(self) -> Path:
        """mconsole's socket; there once the kernel is up, if the sandbox lets UML have one."""
        return self._home / "u" / "m" / "mconsole"

    def wait_up(self, timeout_s: float = 60) -> None:
        """Wait until the guest's agent can be talked to.

        Raises: MachineEnded if the machine ends first, NotUp if time is over; both with the console's tail.
        """
        deadline = time.monotonic() + timeout_s
        if self.agent.wait_ready(deadline):
            self._up = True
            return
        self._read_notices()
        if (outcome := self._ended()) is not None:
            raise MachineEnded(self.name, "waiting for it to come up", str(outcome), outcome.status, self._last_words())
        boots = (self.mconsole_path.parent / "pid").exists()
        got = "its kernel runs, its agent is silent" if boots else "no kernel yet"
        raise NotUp(self.name, timeout_s, got, self.console.lines())

    def exec(
        self,
        command: Sequence[str] | str,
        *,
        timeout_s: float = 60,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | IO[bytes] | None = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Run a command in the guest as root: argv, or text for `sh -c`. See `Agent.run`.

        Raises: GuestTimeout, AgentLost, MachineEnded.
        """
        doing = command if isinstance(command, str) else " ".join(command)
        with self._telling_end(doing), contextlib.ExitStack() as stack:
            if isinstance(stdin, bytes):
                content = stack.enter_context(tree.scratch())
                content.write(stdin)
                stdin = content
            return self.agent.run(
                command, timeout_s=timeout_s, cwd=cwd, env=env, stdin=stdin,
                on_stdout=on_stdout, on_stderr=on_stderr, cancelled=cancelled,
            )  # fmt: skip

    def copy_in(self, source: Path, target: str, *, timeout_s: float = _COPY_S) -> None:
        """Make the guest's path `target` a copy of `source`, a file or a directory; owned by root there.

        Raises: GuestFailed, and what `exec` raises.
        """
        parent, _, name = target.rstrip("/").rpartition("/")
        assert name and target.startswith("/"), target
        with tree.pack(source, name) as archive:
            script = 'mkdir -p -- "$PARENT" && exec tar -x -f - -C "$PARENT"'
            result = self.exec(script, env={"PARENT": parent or "/"}, stdin=archive, timeout_s=timeout_s)
        if not result.ok:
            raise GuestFailed(f"{source}: copying it to {target}", result.status, result.stderr)

    def copy_out(self, source: str, target: Path, *, timeout_s: float = _COPY_S) -> None:
        """Make the host's path `target` a copy of the guest's `source`, a file or a directory.

        Raises: GuestFailed, MachineError (an archive that tries to escape), and what `exec` raises.
        """
        parent, _, name = source.rstrip("/").rpartition("/")
        assert name and source.startswith("/"), source
        with tree.scratch() as archive:
            result = self.exec(
                'exec tar -c -f - -C "$PARENT" -- "$NAME"', env={"PARENT": parent or "/", "NAME": name},
                on_stdout=lambda block: _write_all(archive, block), timeout_s=timeout_s,
            )  # fmt: skip
            if not result.ok:
                raise GuestFailed(f"{source}: copying it to {target}", result.status, result.stderr)
            tree.unpack(archive, target)

    def mconsole(self, command: str, timeout_s: float = 5) -> str:
        """Send a command to UML's management console. Raises: MconsoleError, MachineEnded."""
        if (outcome := self._ended()) is not None:
            raise MachineEnded(self.name, f"mconsole {command}", str(outcome), outcome.status)
        self._need_mconsole(command)
        return mconsole.ask(self.mconsole_path, command, timeout_s)

    def _need_mconsole(self, command: str) -> None:
        if self._mailbox.is_built_in():
            raise MconsoleError(command, "this machine has no mconsole: its sandbox (landlock) lets it open no socket")

    # --- the end ----------------------------------------------------------------------------------------

    def stop(
        self, power_off_s: float = 60, cad_s: float = 15, halt_s: float = 5, kill_s: float = 10
    ) -> Outcome:
        """End it, as cleanly as it lets us: by its agent, by Ctrl-Alt-Del, by mconsole's halt (no sync), by force. One
        without mconsole has the first and the last way only.

        Each way has its own time; one that the guest does not take up is not waited for.
        """
        if self._up and self.agent.power_off(min(5, power_off_s)) and (end := self.outcome(power_off_s)):
            return end
        # Without noreboot Ctrl-Alt-Del would start it anew.
        for command, patience_s in (("cad", 0 if self._reboot else cad_s), ("halt", halt_s)):
            if patience_s and self.is_running():
                with contextlib.suppress(MachineError):
                    self._need_mconsole(command)
                    mconsole.ask(self.mconsole_path, command, min(2, patience_s))
                    if end := self.outcome(patience_s):
                        return end
        return self.kill(kill_s)

    def kill(self, timeout_s: float = 10) -> Outcome:
        """Pull the plug."""
        if self.is_running():
            self._process.terminate()  # the launcher ends UML and cleans up
        if (end := self.outcome(timeout_s)) is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()  # SIGKILL cannot be refused
            end = self.outcome()
        assert end is not None
        return end

    def close(self) -> None:
        """Make sure that nothing is left: processes, sockets, directory. Can be called twice."""
        if self._closed:
            return
        self._closed = True
        self.kill()
        if (self._process.poll() or 0) < 0:  # it could not clean up: its janitor does
            deadline = time.monotonic() + _JANITOR_S
            while self._home.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        sweep(self._home)
        os.close(self._lifeline)
        self._read_notices()
        self._notices.close()
        self.agent.close()
        self.console.finish(2)
        shutil.rmtree(self._home, ignore_errors=True)

    def _ended(self) -> Outcome | None:
        """The outcome, if the machine is going down: its lines are closed a moment before the launcher ends."""
        return self.outcome(5) if self.agent.is_lost or not self.is_running() else None

    @contextlib.contextmanager
    def _telling_end(self, doing: str) -> Iterator[None]:
        try:
            yield
        except AgentLost:
            if (outcome := self._ended()) is not None:
                raise MachineEnded(
                    self.name, doing, str(outcome), outcome.status, self._last_words()
                ) from None
            raise

    def _last_words(self) -> list[str]:
        self.console.finish(2)
        return self.console.lines()

    def _read_notices(self) -> None:
        while notification := self._notices.read():
            if notification.kind is Kind.PANIC:
                self.panic = notification.text


def sweep(home: Path) -> None:
    """Kill what still has `home` (or below) as its working directory: only helpers of a machine do.

    The launcher and its janitor do this, too; here for the case that both were killed.
    """
    for _ in range(50):
        pids = list(_inside(home))
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _inside(home: Path) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                where = os.readlink(f"/proc/{entry.name}/cwd").removesuffix(" (deleted)")
                if where == str(home) or where.startswith(f"{home}/"):
                    yield int(entry.name)


def _lines(undo: contextlib.ExitStack) -> tuple[list[socket.socket], list[int]]:
    """Our ends of the agent's three lines, and the numbers of the machine's ends."""
    ours: list[socket.socket] = []
    theirs: list[int] = []
    for _ in range(3):
        mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.callback(mine.close)
        ours.append(mine)
        theirs.append(fcntl.fcntl(other.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_FD))
        other.close()
    assert all(stat.S_ISSOCK(os.fstat(fd).st_mode) for fd in theirs)
    return ours, theirs


def _write_all(file: IO[bytes], block: bytes) -> None:
    file.write(block)
