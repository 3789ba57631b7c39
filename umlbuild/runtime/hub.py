"""A hub for machines with `transport = { kind = "bess", dst = SOCKET }`: it listens there, and switches their frames.

Frames wait in queues of limited size, and are dropped when one is full, as in any switch: a machine that does not
read costs the others nothing. Descriptors and addresses are limited, too.

Source: arch/um/drivers/vector_user.c user_init_unix_fds: one SOCK_SEQPACKET connection per interface, one frame per
message.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from umlbuild.errors import HostError
from umlbuild.runtime.switch import Switch

MOST_PORTS = 64
FRAME = 65_550
"""Bytes of the largest frame that UML sends."""
QUEUE_FRAMES = 512
QUEUE_BYTES = 2 << 20
_BATCH = 64
"""Frames of one port before the others have their turn."""
_PATH = 107
"""Bytes of a unix socket's path. Source: unix(7)."""


@dataclass
class Port:
    """One connection, and the frames that wait for it."""

    line: socket.socket
    waiting: deque[bytes] = field(default_factory=deque)
    size: int = 0

    def put(self, frame: bytes) -> bool:
        """Queue a frame; False if it is dropped."""
        if len(self.waiting) >= QUEUE_FRAMES or self.size + len(frame) > QUEUE_BYTES:
            return False
        self.waiting.append(frame)
        self.size += len(frame)
        return True

    def flush(self) -> None:
        """Send what can be sent now. Raises: OSError when nobody is there any more."""
        while self.waiting:
            try:
                self.line.send(self.waiting[0])
            except (BlockingIOError, InterruptedError):
                return
            self.size -= len(self.waiting.popleft())


class Hub:
    """The listening socket and its ports. A context manager: leaving it closes all and removes the socket."""

    def __init__(self, path: Path, owner: int | None = None) -> None:
        """`owner`: the user id who may connect, besides root. Raises: HostError."""
        self.path = path
        self.dropped = 0
        """Frames that found a queue full."""
        self._ports: dict[int, Port] = {}
        self._switch = Switch()
        self._next = 0
        self._selector = selectors.DefaultSelector()
        self._listener = _listening(path, owner)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close everything."""
        for port in self._ports.values():
            port.line.close()
        self._ports.clear()
        self._selector.close()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    @property
    def ports(self) -> int:
        """How many are connected."""
        return len(self._ports)

    def add(self, line: socket.socket) -> int:
        """One more port; its number."""
        line.setblocking(False)
        self._next += 1
        self._ports[self._next] = Port(line)
        self._selector.register(line, selectors.EVENT_READ, self._next)
        return self._next

    def has(self, number: int) -> bool:
        """Whether this port is still connected."""
        return number in self._ports

    def turn(self, wait_s: float) -> None:
        """Move what there is to move; wait for `wait_s` at most if there is nothing."""
        for key, events in self._selector.select(wait_s):
            if key.data is None:
                self._accept()
            elif key.data in self._ports:
                self._serve(key.data, events)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError, ConnectionError):
            line, _ = self._listener.accept()
            if len(self._ports) < MOST_PORTS:
                self.add(line)
            else:
                line.close()

    def _serve(self, number: int, events: int) -> None:
        port = self._ports[number]
        touched = {number} if events & selectors.EVENT_WRITE else set()
        try:
            for _ in range(_BATCH if events & selectors.EVENT_READ else 0):
                if not (frame := port.line.recv(FRAME)):
                    self._remove(number)
                    break
                touched |= self._forward(frame, number)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._remove(number)
        for other in touched:
            self._flush(other)

    def _forward(self, frame: bytes, source: int) -> set[int]:
        targets = self._switch.targets(frame, source, self._ports, time.monotonic())
        for target in targets:
            self.dropped += not self._ports[target].put(frame)
        return set(targets)

    def _flush(self, number: int) -> None:
        if (port := self._ports.get(number)) is None:
            return
        try:
            port.flush()
        except OSError:
            self._remove(number)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.waiting else 0)
        if self._selector.get_key(port.line).events != events:
            self._selector.modify(port.line, events, number)

    def _remove(self, number: int) -> None:
        port = self._ports.pop(number)
        self._selector.unregister(port.line)
        port.line.close()
        self._switch.forget(number)


def _listening(path: Path, owner: int | None) -> socket.socket:
    if len(os.fsencode(path)) > _PATH:
        raise HostError(f"{path}: is longer than the {_PATH} bytes that a socket's address holds", "use a shorter path")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _make_room(path)
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        if owner is not None:
            os.chown(path, owner, -1)
        listener.listen(MOST_PORTS)
    except OSError as problem:
        listener.close()
        raise HostError(f"{path}: cannot listen there: {problem.strerror}", "give another path") from problem
    except HostError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _make_room(path: Path) -> None:
    """Remove the socket of a hub that was killed. Raises: HostError if anything else is there."""
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket() or path.is_symlink():
        raise HostError(f"{path}: is there already, and is no socket", "give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(2)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as problem:
            raise HostError(f"{path}: is there already: {problem}", "give another path") from problem
    raise HostError(f"{path}: another hub listens there", "end that one, or give another path")
