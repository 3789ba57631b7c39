"""UML's management console: datagrams over a unix socket, and the notifications that it sends by itself.

Never reads or writes anything but those sockets; every wait has a timeout.

Source: arch/um/drivers/mconsole.h and mconsole_user.c (6.1 and 7.3 speak the same), measured against both.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from itertools import count
from pathlib import Path

from umlbuild.runtime.failures import MachineError

MAGIC = 0xCAFEBABE
VERSION = 2
REQUEST_LIMIT = 511
"""Bytes of a command; UML's buffer holds 512 with its NUL."""
_REPLY_LIMIT = 1 << 20
_numbers = count()


class MconsoleError(MachineError):
    """A command that mconsole refused, or did not answer."""

    def __init__(self, command: str, why: str) -> None:
        self.command = command
        super().__init__(f"mconsole {command}: {why}")


@dataclass(frozen=True)
class Reply:
    """One datagram of an answer."""

    error: int
    """0, or what UML returned: 1 or -errno."""
    more: bool
    """Whether another datagram follows."""
    text: bytes


class Kind(IntEnum):
    """What a notification is about."""

    SOCKET = 0
    """mconsole can be used; the text is its socket's path."""
    PANIC = 1
    HANG = 2
    USER = 3
    """Text that root of the guest wrote to /proc/mconsole."""


@dataclass(frozen=True)
class Notification:
    """Something that UML said without being asked."""

    kind: Kind
    text: str


def request_of(command: str) -> bytes:
    """The datagram of a command. Raises: MconsoleError if it is too long."""
    data = command.encode()
    if len(data) > REQUEST_LIMIT:
        raise MconsoleError(command[:40] + "…", f"has {len(data)} bytes, at most {REQUEST_LIMIT} fit")
    return struct.pack("=III", MAGIC, VERSION, len(data)) + data


def parse_reply(packet: bytes) -> Reply | None:
    """An answer's datagram, None if it is none."""
    if len(packet) < 12:
        return None
    error, more, length = struct.unpack_from("=iII", packet)
    if length > len(packet) - 12 or more > 1:
        return None
    return Reply(error, bool(more), packet[12 : 12 + length].removesuffix(b"\0"))


def parse_notification(packet: bytes) -> Notification | None:
    """A notification's datagram, None if it is none."""
    if len(packet) < 16:
        return None
    magic, version, kind, length = struct.unpack_from("=IIiI", packet)
    if magic != MAGIC or version != VERSION or length > len(packet) - 16 or kind not in iter(Kind):
        return None
    text = packet[16 : 16 + length].split(b"\0", 1)[0]
    return Notification(Kind(kind), text.decode(errors="replace"))


def ask(socket_path: Path, command: str, timeout_s: float = 5) -> str:
    """Send a command and return its answer; the socket is `u/m/mconsole` of a machine's private directory.

    Our own socket stands in its `box`, which both sides see under one name and the guest cannot change.

    Raises: MconsoleError when it is refused, or not answered in time.
    """
    deadline = time.monotonic() + timeout_s
    packet = request_of(command)
    own = socket_path.parents[2] / "box" / f"c{os.getpid()}.{next(_numbers)}"
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        try:
            there = _opened(socket_path)
            stack.callback(os.close, there)
            client.bind(os.fspath(own))
            stack.callback(own.unlink, missing_ok=True)
            own.chmod(0o777)  # UML can be another user, and must be able to answer
            client.settimeout(timeout_s)
            client.sendto(packet, f"/proc/self/fd/{there}")
            error, text = _answer(client, deadline)
        except TimeoutError:
            raise MconsoleError(command, f"no answer within {timeout_s:g} s") from None
        except OSError as problem:
            raise MconsoleError(command, f"{socket_path}: {problem.strerror or problem}") from problem
    if error:
        raise MconsoleError(command, text.strip() or f"error {error}")
    return text


def _opened(path: Path) -> int:
    """UML's socket, as a descriptor to be named. What lies in `u` is the guest's: a link there could lead our words
    to any socket of the host, so none is followed.

    Raises: OSError.
    """
    base = path.parents[1]
    words = [base.name, *path.relative_to(base).parts]
    start = base.parent
    if base.is_symlink():  # made by the launcher: /proc/PID/root/dev/shm/u, in the sandbox's own view
        target = Path(os.readlink(base))
        start, words = Path(*target.parts[:4]), [*target.parts[4:], *words[1:]]
    at = os.open(start, os.O_PATH | os.O_CLOEXEC)
    for word in words:
        try:
            inner = os.open(word, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
        at = inner
    if not stat.S_ISSOCK(os.fstat(at).st_mode):
        os.close(at)
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    return at


def _answer(client: socket.socket, deadline: float) -> tuple[int, str]:
    error, text = 0, b""
    while len(text) < _REPLY_LIMIT:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        client.settimeout(left)
        reply = parse_reply(client.recv(65536))
        if reply is None:
            continue
        error = error or reply.error
        text += reply.text
        if not reply.more:
            break
    return error, text.decode(errors="replace")


class Notices:
    """The socket on which UML's notifications arrive. Bind it before UML starts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(os.fspath(path))
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def read(self) -> Notification | None:
        """The next notification that has arrived; None if there is none (garbage is dropped)."""
        while True:
            try:
                packet = self._socket.recv(65536)
            except OSError:
                return None
            notification = parse_notification(packet)
            if notification is not None:
                return notification

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
