"""The kernel as a judge: a program attached to a socket of ours, and what comes through."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from types import TracebackType

from umlbuild.bpf.program import Instruction, packed

SO_ATTACH_FILTER = 26
"""asm-generic/socket.h."""


def attach(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Raises: OSError if the kernel refuses it."""
    code = ctypes.create_string_buffer(packed(program), 8 * len(program))
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HxxxxxxQ", len(program), ctypes.addressof(code))
    )


def takes(program: Sequence[Instruction]) -> bool:
    """Whether the kernel takes a program."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            attach(sock, program)
        except OSError:
            return False
    return True


class Pipe:
    """A pair of unix datagram sockets with the program on the receiving one."""

    def __init__(self, program: Sequence[Instruction]) -> None:
        self._in, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._out.setblocking(False)
        attach(self._out, program)

    def passes(self, frame: bytes) -> bool:
        """Whether the frame comes through; it is there when `send` returns, or never."""
        self._in.send(frame)
        try:
            got = self._out.recv(1 << 17)
        except BlockingIOError:
            return False
        assert got == frame
        return True

    def __enter__(self) -> Pipe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in.close()
        self._out.close()
