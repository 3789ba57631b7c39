"""What is put around a compiled expression: the drop of own frames, and the spelling of the kernel's traffic control.

Jumps are relative, so a program may be moved as a whole.

Source: uml-facts 2.4; linux/if_packet.h (PACKET_OUTGOING); tc-bpf(8).
"""

from __future__ import annotations

from collections.abc import Sequence

from umlbuild.bpf import program as bpf
from umlbuild.bpf.program import Instruction, Program

ALL = 262_144
"""What a program of libpcap returns for a packet that passes: more bytes than any frame has."""

DROP_OWN: Program = (
    Instruction(bpf.LD | bpf.H | bpf.ABS, 0, 0, bpf.ANCILLARY + 4),
    Instruction(bpf.JMP | bpf.JEQ | bpf.K, 0, 1, 4),
    Instruction(bpf.RET_K, 0, 0, 0),
)
"""Ends with verdict 0 for frames that the interface itself sends; else goes on behind its end."""

ACCEPT_ALL: Program = (Instruction(bpf.RET_K, 0, 0, ALL),)


def incoming(program: Sequence[Instruction] = ACCEPT_ALL) -> Program:
    """`program` for frames that others sent, as a filter of UML's receiving socket."""
    first = program[0].code
    # A program may count on A being 0 at its start; DROP_OWN leaves the packet's type there.
    sets_a = first == bpf.RET_K or first & 7 == bpf.LD
    return (*DROP_OWN, *(() if sets_a else (Instruction(bpf.LD_IMM, 0, 0, 0),)), *program)


def bytecode(program: Sequence[Instruction]) -> str:
    """The program as tc-bpf(8) takes it (`bytecode-file`) and shows it."""
    return ",".join([str(len(program)), *(f"{code} {jt} {jf} {k}" for code, jt, jf, k in program)])
