"""The only gate to programs.

argv lists, never a shell; stdin is /dev/null unless given; a small explicit environment, a fixed umask; each child
is the leader of its own process group, which dies with us; output goes to the step's log; every call has
a timeout, and when it is over (or the build is cancelled) the whole group is ended: TERM, then KILL.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from umlbuild.errors import Cancelled, HostError, ToolFailed
from umlbuild.host import guardian

EPOCH = 1_700_000_000
"""SOURCE_DATE_EPOCH of everything that is built: one fixed moment, so that times never differ."""

UMASK = 0o022
"""Of every child: what a program makes goes into images with the modes that it gets."""

TAIL_LINES = 20
_KILL_AFTER_S = 2.0
_POLL_S = 0.05

_running: set[int] = set()
_running_lock = threading.Lock()
_cancelled = threading.Event()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child sees: PATH (with the sbin directories), C locale, UTC, the fixed epoch, and `extra`."""
    path = os.environ.get("PATH", "/usr/bin:/bin").split(":")
    path += [d for d in ("/usr/local/sbin", "/usr/sbin", "/sbin") if d not in path]
    env = {
        "PATH": ":".join(path),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(EPOCH),
    }
    # Proxies are the host's way to its mirrors; without them nothing can be fetched there.
    for name in ("http_proxy", "https_proxy", "no_proxy", "TMPDIR"):
        if name in os.environ:
            env[name] = os.environ[name]
    env.update(extra or {})
    return env


def find(program: str) -> str | None:
    """The absolute path of a program, looked up as children will see it; None if there is none."""
    return shutil.which(program, path=environment()["PATH"])


def run(
    argv: Sequence[str],
    *,
    log: Path | None,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: Path | None = None,
    stdout: Path | None = None,
    ok: Sequence[int] = (0,),
    watch: Callable[[], None] | None = None,
) -> int:
    """Run one program to its end and return its exit status.

    Both streams are appended to `log` (to /dev/null without one); `stdout` sends that stream to a file.
    `watch` is called twice a second meanwhile, for programs that do not notice their own end: what it raises
    ends the program.

    Raises: ToolFailed (status not in `ok`, signal, timeout), HostError (no such program), Cancelled.
    """
    with _log(log, argv, cwd) as sink, contextlib.ExitStack() as stack:
        source = stack.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        target: IO[bytes] | int = stack.enter_context(stdout.open("wb")) if stdout else sink
        child = _spawn(argv, cwd=cwd, env=env, stdin=source, stdout=target, stderr=sink)
        return _finish([(argv, child)], time.monotonic() + timeout_s, timeout_s, log, ok, watch=watch)


def pipeline(
    commands: Sequence[Sequence[str]],
    *,
    log: Path | None,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: Path | None = None,
    stdout: Path | None = None,
) -> None:
    """Run programs joined by pipes; every one of them must succeed.

    Raises: as `run`, for the first that failed.
    """
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(_log(log, commands[-1], cwd))
        source: IO[bytes] | int = stack.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        children: list[tuple[Sequence[str], subprocess.Popen[bytes]]] = []
        try:
            for argv in commands:
                last = argv is commands[-1]
                target: IO[bytes] | int = subprocess.PIPE
                if last:
                    target = stack.enter_context(stdout.open("wb")) if stdout else sink
                child = _spawn(argv, cwd=cwd, env=env, stdin=source, stdout=target, stderr=sink)
                if children and children[-1][1].stdout is not None:
                    children[-1][1].stdout.close()  # ours; the next program holds its own
                children.append((argv, child))
                source = child.stdout if child.stdout is not None else subprocess.DEVNULL
        except BaseException:
            for _, child in children:
                _end_group(child)
            raise
        _finish(children, time.monotonic() + timeout_s, timeout_s, log, (0,))


def output(
    argv: Sequence[str],
    *,
    timeout_s: float = 30,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    ok: Sequence[int] = (0,),
) -> str:
    """What a short-lived program prints on stdout, as text. Raises: as `run`."""
    with _log(log, argv, cwd) as sink:
        child = _spawn(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink,
            guarded=False,  # no child of ours is worth a guardian in programs that only ask something
        )  # fmt: skip
        chunks: list[bytes] = []
        assert child.stdout is not None
        reader = threading.Thread(target=_drain, args=(child.stdout, chunks), daemon=True)
        reader.start()
        _finish([(argv, child)], time.monotonic() + timeout_s, timeout_s, log, ok)
        reader.join(timeout=_KILL_AFTER_S)
        return b"".join(chunks).decode(errors="replace")


def foreground(argv: Sequence[str], *, timeout_s: float, cwd: Path | None = None) -> int:
    """Run a program for the person at our terminal: our streams, our whole environment, our process group.

    A terminal's Ctrl-C reaches it directly. Returns its exit status, negative for a signal.

    Raises: HostError (no such program), ToolFailed (timeout), Cancelled.
    """
    if shutil.which(argv[0]) is None:
        raise HostError(f"{argv[0]}: no such program", f"install the package that has {Path(argv[0]).name}")
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], cwd=cwd) as child:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(timeout=0.2)
                if _cancelled.is_set():
                    raise Cancelled(f"{argv[0]}: ended, the build was told to stop")
                if time.monotonic() > deadline:
                    raise ToolFailed(argv, f"not done after {timeout_s:g} s, ended", None, [])
        finally:
            if child.poll() is None:
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=_KILL_AFTER_S)
            if child.poll() is None:
                child.kill()


def cancel() -> None:
    """End every running child, and make every later call raise Cancelled. Callable from a signal handler."""
    _cancelled.set()
    with contextlib.suppress(RuntimeError):
        for pid in list(_running):
            _signal_group(pid, signal.SIGTERM)


def kill() -> None:
    """SIGKILL every running child's group, for a process that is about to exit without waiting."""
    with contextlib.suppress(RuntimeError):
        for pid in list(_running):
            _signal_group(pid, signal.SIGKILL)


def is_cancelled() -> bool:
    """Whether `cancel` was called."""
    return _cancelled.is_set()


def tail_of(log: Path | None, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a log, [] if there is none."""
    if log is None or not log.exists():
        return []
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 64 * 1024))
        return file.read().decode(errors="replace").splitlines()[-lines:]


def _drain(stream: IO[bytes], chunks: list[bytes]) -> None:
    with contextlib.suppress(ValueError, OSError), stream:
        while block := stream.read(65536):
            chunks.append(block)


@contextlib.contextmanager
def _log(log: Path | None, argv: Sequence[str], cwd: Path | None) -> Iterator[IO[bytes] | int]:
    if log is None:
        yield subprocess.DEVNULL
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as sink:
        where = f"(in {cwd}) " if cwd else ""
        sink.write(f"+ {where}{shlex.join(argv)}\n".encode())
        yield sink


def _spawn(
    argv: Sequence[str],
    *,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
    guarded: bool = True,
) -> subprocess.Popen[bytes]:
    if _cancelled.is_set():
        raise Cancelled(f"{argv[0]}: not started, the build is ending")
    full = environment(env)
    if find(argv[0]) is None:
        raise HostError(f"{argv[0]}: no such program", f"install the package that has {Path(argv[0]).name}")
    # setpriv: the child dies with us even if we are killed with SIGKILL.
    guard = ["setpriv", "--pdeathsig", "KILL", "--"]
    with _running_lock:
        child = subprocess.Popen(
            [*guard, *argv], cwd=cwd, env=full, stdin=stdin, stdout=stdout, stderr=stderr,
            start_new_session=True, umask=UMASK,
        )  # fmt: skip
        _running.add(child.pid)
    if guarded:
        guardian.begins(child.pid, full)
    return child


def _finish(
    children: Sequence[tuple[Sequence[str], subprocess.Popen[bytes]]],
    deadline: float,
    timeout_s: float,
    log: Path | None,
    ok: Sequence[int],
    *,
    watch: Callable[[], None] | None = None,
) -> int:
    """Wait for all; raise for the first that failed. No child outlives this call."""
    try:
        for argv, child in children:
            while True:
                if _cancelled.is_set():
                    raise Cancelled(f"{argv[0]}: ended, the build was told to stop")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ToolFailed(argv, f"not done after {timeout_s:g} s, ended", log, tail_of(log))
                if _has_ended(child, min(left, 0.5)):
                    break
                if watch is not None:
                    watch()
        failed = [(argv, child.returncode) for argv, child in children if child.returncode not in ok]
        # A writer whose reader failed dies of SIGPIPE: the reader is the cause.
        failed.sort(key=lambda row: row[1] == -signal.SIGPIPE)
        if failed:
            argv, status = failed[0]
            raise ToolFailed(argv, _cause(status), log, tail_of(log))
        return children[-1][1].returncode
    finally:
        for _, child in children:
            _end_group(child)


def _has_ended(child: subprocess.Popen[bytes], within_s: float) -> bool:
    """Wait for a child's end, at most so long. The kernel wakes us: `Popen.wait` with a timeout looks every 50 ms."""
    try:
        fd = os.pidfd_open(child.pid)
    except (OSError, AttributeError):  # reaped, or a kernel or container without
        fd = None
    try:
        if fd is not None:
            waiter = select.poll()
            waiter.register(fd, select.POLLIN)
            if not waiter.poll(within_s * 1000):
                return False
            within_s = 1  # it is a zombie, there is nothing to wait for
        child.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if fd is not None:
            os.close(fd)
    return True


def _cause(status: int) -> str:
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End whatever is left of a child's process group."""
    if _signal_group(child.pid, signal.SIGTERM):
        deadline = time.monotonic() + _KILL_AFTER_S
        while time.monotonic() < deadline and _group_lives(child):
            time.sleep(_POLL_S)
        _signal_group(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=_KILL_AFTER_S)
    with _running_lock:
        _running.discard(child.pid)
    guardian.ended(child.pid)


def _group_lives(child: subprocess.Popen[bytes]) -> bool:
    child.poll()  # reap, or the group would live on as a zombie
    return _signal_group(child.pid, 0)


def _signal_group(pid: int, number: int) -> bool:
    """Send a signal to a process group; False if there is none any more."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
