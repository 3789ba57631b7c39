"""libpcap, by tcpdump: compiles expressions and reads captures.

A program of its own, since what crashes there must not end the build. As a step's tool it is the pinned one of the
store (`umlbuild.host.tooltree`); the machine's own checks recipes before any work and reads captures.

Source: tcpdump(8) -ddd, -y; tried with 4.99.3 and 4.99.5 (without -i nothing is opened and no privilege is needed).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from umlbuild.bpf import compose, expression
from umlbuild.bpf import program as bpf
from umlbuild.bpf.program import Program
from umlbuild.errors import ToolFailed, UserError
from umlbuild.host import process
from umlbuild.specs.filters import FiltersSpec

HOSTS = ("tcpdump",)
"""The words that start the machine's own."""

_COMPILE_S = 30.0
_READ_S = 300.0
_ETHERNET = 1
_SO_ATTACH_FILTER = 26
"""asm-generic/socket.h; Python does not name it."""


class ExpressionError(UserError):
    """libpcap refuses an expression; `message` is what it says."""


def compiled(expression: str, tcpdump: Sequence[str] = HOSTS) -> Program:
    """The program of an expression for Ethernet frames.

    Raises: ExpressionError (with libpcap's words), ToolFailed (it crashed), HostError (there is none).
    """
    with tempfile.TemporaryDirectory(prefix="umlbuild-pcap.") as scratch:
        log, out = Path(scratch, "log"), Path(scratch, "out")
        argv = [*tcpdump, "-ddd", "-y", "EN10MB", "--", expression]
        try:
            process.run(argv, log=log, timeout_s=_COMPILE_S, stdout=out)
        except ToolFailed as error:
            said = [line.removeprefix("tcpdump: ") for line in error.tail if line.startswith("tcpdump: ")]
            if not said:
                raise
            raise ExpressionError(f"libpcap: {said[-1]}") from error
        try:
            program = bpf.from_decimal(out.read_text())
        except ValueError as error:
            raise ExpressionError(f"libpcap: its program cannot be read: {error}") from error
    if wrong := bpf.problems(program):
        raise ExpressionError(f"the kernel would refuse its program: {wrong[0]}")
    return program


def refusals(spec: FiltersSpec) -> Iterator[str]:
    """`key.path: what is wrong` of each expression that this machine's libpcap refuses."""
    for item in spec.filters:
        at = f"network[{item.interface.removeprefix('vec')}]"
        yield from _refusals(item.incoming or (), f"{at}.filter")
        yield from _refusals(item.outgoing or (), f"{at}.egress")


def _refusals(lines: tuple[str, ...], at: str) -> Iterator[str]:
    whole = _refusal(expression.joined(lines)) if lines else ""
    if not whole:
        return
    single = [f"{at}: {line!r}: {wrong}" for line in lines if (wrong := _refusal(line))]
    yield from single or [f"{at}: all {len(lines)} expressions together: {whole}"]


def _refusal(text: str) -> str:
    try:
        program = compiled(text)
    except ExpressionError as error:
        return error.message
    if len(program) + len(compose.DROP_OWN) > bpf.MOST:
        return f"{len(program)} instructions; {bpf.MOST - len(compose.DROP_OWN)} are possible"
    return ""


def refused_by_kernel(program: Program) -> str:
    """What this machine's kernel says when the program is attached to a socket of ours; "" if it takes it."""
    code = bpf.packed(program)
    held = ctypes.create_string_buffer(code, len(code))
    descriptor = struct.pack("@HxxxxxxQ", len(program), ctypes.addressof(held))  # struct sock_fprog
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        try:
            one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, descriptor)
        except OSError as error:
            return os.strerror(error.errno or 0)
    return ""


def frames(capture: Path) -> Iterator[tuple[bytes, int]]:
    """(bytes, length on the wire) of each Ethernet frame in a capture, of any form that libpcap reads (pcap, pcapng).

    Raises: UserError (not a capture, or of something else than Ethernet), HostError (no tcpdump).
    """
    if not capture.is_file():
        raise UserError(f"{capture}: there is no such file")
    with tempfile.TemporaryDirectory(prefix="umlbuild-pcap.") as scratch:
        log, plain = Path(scratch, "log"), Path(scratch, "plain")
        argv = ["tcpdump", "-n", "-r", str(capture.absolute()), "-w", "-"]
        if os.geteuid() == 0:
            argv[1:1] = ["-Z", "root"]  # it would become a user who may not read the file
        try:
            process.run(argv, log=log, timeout_s=_READ_S, stdout=plain)
        except ToolFailed as error:
            said = [line.removeprefix("tcpdump: ") for line in error.tail if line.startswith("tcpdump: ")]
            raise UserError(f"{capture}: {said[-1] if said else error.cause}") from error
        data = plain.read_bytes()
    yield from _frames(data, capture)


def _frames(data: bytes, capture: Path) -> Iterator[tuple[bytes, int]]:
    """Source: pcap-savefile(5). tcpdump writes this machine's byte order."""
    if len(data) < 24:
        return
    kind = struct.unpack_from("=I", data, 20)[0] & 0xFFFF
    if kind != _ETHERNET:
        raise UserError(f"{capture}: its frames are no Ethernet (link type {kind})")
    at = 24
    while at + 16 <= len(data):
        _, _, kept, length = struct.unpack_from("=IIII", data, at)
        yield data[at + 16 : at + 16 + kept], length
        at += 16 + kept
