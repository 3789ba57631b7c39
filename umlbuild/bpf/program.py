"""A program: parsed, written, and checked by the rules that the kernel has for filters of sockets.

Written as UML's `bpffile=` reads it: an array of struct sock_filter in host byte order, 8 bytes an instruction, no
header.

Source: linux/filter.h, linux/bpf_common.h; net/core/filter.c (bpf_check_classic, chk_code_allowed,
check_load_and_stores); arch/um/drivers/vector_user.c (uml_vector_user_bpf).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

MOST = 4096
"""BPF_MAXINSNS: longer programs are refused by the kernel."""
SIZE = 8
"""Bytes of an instruction."""

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
"""Classes: the lowest three bits of a code."""
W, H, B = 0x00, 0x08, 0x10
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = range(0, 0xB0, 0x10)
JA, JEQ, JGT, JGE, JSET = range(0, 0x50, 0x10)
K, X, A = 0x00, 0x08, 0x10
TAX, TXA = 0x00, 0x80
SLOTS = 16
"""BPF_MEMWORDS."""

LD_IMM = LD | IMM
LDX_IMM = LDX | W | IMM
RET_K, RET_A = RET | K, RET | A
LOADS = {size | mode for size in (W, H, B) for mode in (ABS, IND)}
"""Codes that load from the packet into A."""
LD_LEN, LDX_LEN, LDX_MSH = LD | W | LEN, LDX | W | LEN, LDX | B | MSH
LD_MEM, LDX_MEM = LD | MEM, LDX | MEM
ALU_OPS = (ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, MOD, XOR)
JUMPS = (JEQ, JGT, JGE, JSET)

CODES = frozenset({
    *LOADS, LD_IMM, LDX_IMM, LD_LEN, LDX_LEN, LDX_MSH, LD_MEM, LDX_MEM, ST, STX, RET_K, RET_A, MISC | TAX, MISC | TXA,
    ALU | NEG, *(ALU | op | by for op in ALU_OPS for by in (K, X)), JMP | JA,
    *(JMP | op | by for op in JUMPS for by in (K, X)),
})  # fmt: skip
"""All codes that the kernel takes."""

ANCILLARY = 0xFFFFF000
"""SKF_AD_OFF: absolute loads from here on read what is known of a packet besides its bytes."""
FIELDS = {
    0: "proto", 4: "type", 8: "ifidx", 20: "mark", 24: "queue", 28: "hatype", 32: "rxhash", 36: "cpu",
    44: "vlan_tci", 48: "vlan_avail", 60: "vlan_tpid",
}  # fmt: skip
"""Offset from ANCILLARY → name (bpf_asm's). Left out: netlink attributes, payload offset, random numbers, and
A ^= X, which no filter of frames wants."""


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    jt: int
    jf: int
    k: int


Program = tuple[Instruction, ...]


def packed(program: Sequence[Instruction]) -> bytes:
    """The program as `bpffile=` and SO_ATTACH_FILTER want it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def unpacked(data: bytes) -> Program:
    """The program in a file. Raises: ValueError (empty, or a broken last instruction)."""
    if not data or len(data) % SIZE:
        raise ValueError(f"{len(data)} bytes are no program: instructions have {SIZE} bytes each")
    return tuple(Instruction(*row) for row in struct.iter_unpack("=HBBI", data))


def from_decimal(text: str) -> Program:
    """The program that `tcpdump -ddd` or tc's `bytecode` shows: the number of instructions, then "code jt jf k" each.

    Raises: ValueError.
    """
    count, *rows = text.strip().replace(",", "\n").split("\n")
    program = tuple(_row(row) for row in rows if row.strip())
    if int(count) != len(program):
        raise ValueError(f"{len(program)} instructions where {count} were promised")
    for code, jt, jf, k in program:
        if not (0 <= code < 1 << 16 and 0 <= jt < 256 and 0 <= jf < 256 and 0 <= k < 1 << 32):
            raise ValueError(f"{code} {jt} {jf} {k} is no instruction")
    return program


def _row(text: str) -> Instruction:
    code, jt, jf, k = map(int, text.split())
    return Instruction(code, jt, jf, k)


def problems(program: Sequence[Instruction]) -> list[str]:
    """Why the kernel would refuse it; [] if it takes it. Each names its instruction, counted from 0."""
    if not 1 <= len(program) <= MOST:
        return [f"{len(program)} instructions; a filter has 1 to {MOST}"]
    found = [f"({at}) {wrong}" for at in range(len(program)) if (wrong := _wrong(program, at))]
    if not found and program[-1].code not in (RET_K, RET_A):
        # Jumps go forward only: if the last instruction returns, every path does.
        found.append(f"({len(program) - 1}) the end is reached without a verdict")
    return found or [f"({at}) reads a memory slot that nothing was stored in" for at in _unstored(program)]


def _wrong(program: Sequence[Instruction], at: int) -> str:
    """What is wrong with one instruction by itself, or ""."""
    code, jt, jf, k = program[at]
    left = len(program) - at - 1
    if code not in CODES:
        return f"unknown code 0x{code:02x}"
    if code in (ALU | DIV | K, ALU | MOD | K) and k == 0:
        return "division by zero"
    if code in (ALU | LSH | K, ALU | RSH | K) and k >= 32:
        return f"shift by {k}"
    if code in (LD_MEM, LDX_MEM, ST, STX) and k >= SLOTS:
        return f"memory slot {k}; there are {SLOTS}"
    if code == JMP | JA and k >= left:
        return "jumps out of the program"
    if code & 7 == JMP and code != JMP | JA and max(jt, jf) >= left:
        return "jumps out of the program"
    if code in LOADS and code & 0xE0 == ABS and k >= ANCILLARY and k - ANCILLARY not in FIELDS:
        return f"loads from 0x{k:08x}, which is unknown"
    return ""


def _unstored(program: Sequence[Instruction]) -> list[int]:
    """Where a slot is read that not every way there has stored (the kernel keeps one set of slots a jump target)."""
    everything = (1 << SLOTS) - 1
    arriving = [everything] * len(program)
    stored, found = 0, []
    for at, (code, jt, jf, k) in enumerate(program):
        stored &= arriving[at]
        if code in (ST, STX):
            stored |= 1 << k
        elif code in (LD_MEM, LDX_MEM):
            if not stored & 1 << k:
                found.append(at)
        elif code == JMP | JA:
            arriving[at + 1 + k] &= stored
            stored = everything
        elif code & 7 == JMP:
            arriving[at + 1 + jt] &= stored
            arriving[at + 1 + jf] &= stored
            stored = everything
    return found
