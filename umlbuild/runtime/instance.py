"""Named machines of one user: who claims a name, where its supervisor listens, how one talks to it.

Below one private directory (0700) each name has a lock, held by the supervisor as long as it lives (the kernel
drops it with the process, so it is never stale), and a unix stream socket. Frames on the socket: one letter, the
length as 32 bits, then so many bytes. A client sends one `R` (a request, JSON) and gets `O` and `E` (stdout and
stderr of a command) and at the end one `X` (JSON).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from umlbuild.errors import HostError, UserError
from umlbuild.runtime.failures import MachineError
from umlbuild.runtime.machine import runtime_base

FRAME_LIMIT = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


class NoSuchInstance(UserError):
    """A name under which nothing runs."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: no machine runs under this name", "umlbuild ps lists those that do")


@dataclass(frozen=True)
class Facts:
    """What a supervisor says about its machine."""

    name: str
    pid: int
    """Of the supervisor."""
    bundle: str
    started: float
    """Seconds since the epoch."""


def home() -> Path:
    """The private directory of all of this user's machines, made if absent.

    Raises: HostError if somebody else made it.
    """
    base = runtime_base()
    path = base / (f"umlbuild-{os.getuid()}" if base == Path("/tmp") else "umlbuild")
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise HostError(f"{path}: is not a private directory of yours", "remove it, or set XDG_RUNTIME_DIR")
    return path


def check_name(name: str) -> str:
    """The name, if it can be one. Raises: UserError."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name}: not a name for a machine", "use at most 40 of a-z, 0-9, dot, dash, underscore")
    return name


def socket_path(name: str) -> Path:
    """Where the supervisor of a name listens."""
    return home() / f"{check_name(name)}.sock"


def claim(facts: Facts) -> IO[str]:
    """Take a name; it is ours until the returned file is closed. Raises: UserError if it is taken."""
    lock = (home() / f"{check_name(facts.name)}.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(
            f"{facts.name}: a machine runs under this name already",
            f"umlbuild stop {facts.name}, or choose another with --name",
        ) from None
    lock.truncate(0)
    lock.write(json.dumps(asdict(facts)))
    lock.flush()
    return lock


def running() -> list[Facts]:
    """The machines that run, by name; what dead supervisors left is removed on the way."""
    found = []
    for path in sorted(home().glob("*.lock")):
        with path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                with contextlib.suppress(ValueError, TypeError):
                    found.append(Facts(**json.loads(path.read_text())))
                continue
            path.with_suffix(".sock").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    return found


def wait_free(name: str, timeout_s: float) -> bool:
    """Wait until nothing runs under a name any more; whether that came to pass."""
    deadline = time.monotonic() + timeout_s
    while any(facts.name == name for facts in running()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def send(line: socket.socket, letter: bytes, payload: bytes) -> None:
    """Send one frame, cut into several if it is long."""
    for at in range(0, max(1, len(payload)), FRAME_LIMIT):
        part = payload[at : at + FRAME_LIMIT]
        line.sendall(letter + struct.pack(">I", len(part)) + part)


def receive(line: socket.socket) -> tuple[bytes, bytes] | None:
    """The next frame; None at the end, or for a frame that cannot be one."""
    head = _exactly(line, 5)
    if head is None:
        return None
    (length,) = struct.unpack(">I", head[1:])
    if length > FRAME_LIMIT or (payload := _exactly(line, length)) is None:
        return None
    return head[:1], payload


def call(
    name: str,
    request: Mapping[str, object],
    timeout_s: float,
    on_stdout: Callable[[bytes], None],
    on_stderr: Callable[[bytes], None],
) -> dict[str, object]:
    """Ask the supervisor of a name for something and return its last word.

    Raises: NoSuchInstance; MachineError when it reports an error, does not answer in time, or dies.
    """
    sinks = {b"O": on_stdout, b"E": on_stderr}
    with _connected(name, timeout_s) as line:
        try:
            send(line, b"R", json.dumps(request).encode())
            while (frame := receive(line)) is not None:
                letter, payload = frame
                if letter == b"X":
                    answer = json.loads(payload)
                    assert isinstance(answer, dict)
                    return answer
                if letter in sinks:
                    sinks[letter](payload)
        except TimeoutError:
            raise MachineError(f"{name}: its supervisor does not answer") from None
        except OSError as problem:
            raise MachineError(f"{name}: its supervisor is gone: {problem.strerror}") from problem
    raise MachineError(f"{name}: its supervisor is gone")


@contextlib.contextmanager
def _connected(name: str, timeout_s: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(timeout_s)
        try:
            line.connect(os.fspath(socket_path(name)))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoSuchInstance(name) from None
        yield line


def _exactly(line: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        block = line.recv(count - len(data))
        if not block:
            return None
        data += block
    return bytes(data)
