"""Runs a program over a packet, as the kernel would.

Where libpcap's own interpreter differs from the kernel, this follows the kernel: an indexed load whose address wraps
around 32 bits reads there (libpcap: verdict 0), a shift by a register takes its lowest five bits (libpcap: 0 from 32
on). Filters that do neither have one meaning.

Source: net/core/filter.c (bpf_convert_filter, bpf_internal_load_pointer_neg_helper), kernel/bpf/core.c;
libpcap bpf_filter.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from umlbuild.bpf import program as bpf
from umlbuild.bpf.program import Instruction

_MASK = 0xFFFFFFFF
_NET, _LINK = 0xFFF00000, 0xFFE00000
"""SKF_NET_OFF, SKF_LL_OFF: from here on loads count from the network and the link header."""


@dataclass(frozen=True)
class Ancillary:
    """What is known of a packet besides its bytes; as of one that was received, by default."""

    type: int = 0
    """PACKET_HOST 0, BROADCAST 1, MULTICAST 2, OTHERHOST 3, OUTGOING 4 (linux/if_packet.h)."""
    ifidx: int | None = None
    """Index of the interface; None for a socket without one (AF_UNIX): such a load is the verdict 0."""
    proto: int | None = None
    """EtherType; that of the frame if None."""
    mark: int = 0
    queue: int = 0
    hatype: int | None = 1
    """ARPHRD_ETHER."""
    rxhash: int = 0
    cpu: int = 0
    vlan_tci: int = 0
    vlan_avail: int = 0
    """1 if the kernel took a tag off the frame."""
    vlan_tpid: int = 0


RECEIVED = Ancillary()
OWN = Ancillary(type=4)
"""A frame that this host sent."""


class _NoSuchByte(Exception):
    """A load beyond the packet's end ends the program with verdict 0."""


_COMPUTE: dict[int, Callable[[int, int], int]] = {
    bpf.ADD: lambda a, b: a + b, bpf.SUB: lambda a, b: a - b, bpf.MUL: lambda a, b: a * b,
    bpf.DIV: lambda a, b: a // b, bpf.MOD: lambda a, b: a % b, bpf.OR: lambda a, b: a | b,
    bpf.AND: lambda a, b: a & b, bpf.XOR: lambda a, b: a ^ b, bpf.LSH: lambda a, b: a << (b & 31),
    bpf.RSH: lambda a, b: a >> (b & 31),
}  # fmt: skip
_JUMP: dict[int, Callable[[int, int], bool]] = {
    bpf.JEQ: lambda a, b: a == b, bpf.JGT: lambda a, b: a > b, bpf.JGE: lambda a, b: a >= b,
    bpf.JSET: lambda a, b: bool(a & b),
}  # fmt: skip


def verdict(program: Sequence[Instruction], packet: bytes, known: Ancillary = RECEIVED) -> int:
    """How many bytes of the packet pass (0: it is dropped). The program must have no `bpf.problems`."""
    try:
        return _run(program, packet, known)
    except _NoSuchByte:
        return 0


def passes(program: Sequence[Instruction], packet: bytes, known: Ancillary = RECEIVED) -> bool:
    """Whether the packet passes."""
    return verdict(program, packet, known) != 0


def _run(program: Sequence[Instruction], packet: bytes, known: Ancillary) -> int:
    a = x = at = 0
    slots = [0] * bpf.SLOTS
    while True:
        code, jt, jf, k = program[at]
        at += 1
        kind = code & 7
        if kind == bpf.LD:
            a = _loaded(code, k, x, packet, known) if code in bpf.LOADS else _plain(code, k, packet, slots)
        elif kind == bpf.LDX:
            x = 4 * (_at(packet, k, 1) & 15) if code == bpf.LDX_MSH else _plain(code, k, packet, slots)
        elif kind in (bpf.ST, bpf.STX):
            slots[k] = a if kind == bpf.ST else x
        elif kind == bpf.ALU:
            operand = x if code & bpf.X else k
            operation = code & 0xF0
            if operation == bpf.NEG:
                a = -a & _MASK
            elif operation in (bpf.DIV, bpf.MOD) and operand == 0:
                return 0
            else:
                a = _COMPUTE[operation](a, operand) & _MASK
        elif code == bpf.JMP | bpf.JA:
            at += k
        elif kind == bpf.JMP:
            at += jt if _JUMP[code & 0xF0](a, x if code & bpf.X else k) else jf
        elif kind == bpf.RET:
            return a if code == bpf.RET_A else k
        elif code & 0xF8 == bpf.TXA:
            a = x
        else:
            x = a


def _loaded(code: int, k: int, x: int, packet: bytes, known: Ancillary) -> int:
    """What a load from the packet, or of what is known of it, gives."""
    if code & 0xE0 == bpf.IND:
        k = k + x & _MASK
    elif k >= bpf.ANCILLARY:
        return _known(bpf.FIELDS[k - bpf.ANCILLARY], packet, known)
    return _at(packet, k, {bpf.W: 4, bpf.H: 2, bpf.B: 1}[code & 0x18])


def _plain(code: int, k: int, packet: bytes, slots: Sequence[int]) -> int:
    """A constant, a slot or the packet's length."""
    mode = code & 0xE0
    if mode == bpf.LEN:
        return len(packet)
    return slots[k] if mode == bpf.MEM else k


def _known(name: str, packet: bytes, known: Ancillary) -> int:
    if name == "proto" and known.proto is None:
        return _at(packet, 12, 2)
    value = getattr(known, name)
    if value is None:
        raise _NoSuchByte
    return int(value)


def _at(packet: bytes, offset: int, size: int) -> int:
    """A number of the packet, in network byte order. Negative offsets count from a header."""
    if offset >= _NET:
        offset += 14 - _NET
    elif offset >= _LINK:
        offset -= _LINK
    if offset + size > len(packet):
        raise _NoSuchByte
    return int.from_bytes(packet[offset : offset + size], "big")
