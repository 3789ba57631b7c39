"""A program read aloud, one line an instruction, in the words of `tcpdump -d`.

Source: libpcap bpf_image.c; names of what is not in the packet from the kernel's tools/bpf/bpf_asm.
"""

from __future__ import annotations

from collections.abc import Sequence

from umlbuild.bpf import program as bpf
from umlbuild.bpf.program import Instruction

_ALU = {
    bpf.ADD: "add", bpf.SUB: "sub", bpf.MUL: "mul", bpf.DIV: "div", bpf.OR: "or", bpf.AND: "and", bpf.LSH: "lsh",
    bpf.RSH: "rsh", bpf.MOD: "mod", bpf.XOR: "xor",
}  # fmt: skip
_JUMP = {bpf.JEQ: "jeq", bpf.JGT: "jgt", bpf.JGE: "jge", bpf.JSET: "jset"}
_LOAD = {bpf.W: "ld", bpf.H: "ldh", bpf.B: "ldb"}
_NAMED = {
    bpf.LD_LEN: ("ld", "#pktlen"), bpf.LDX_LEN: ("ldx", "#pktlen"), bpf.LD_IMM: ("ld", "#0x{k:x}"),
    bpf.LDX_IMM: ("ldx", "#0x{k:x}"), bpf.LD_MEM: ("ld", "M[{k}]"), bpf.LDX_MEM: ("ldx", "M[{k}]"),
    bpf.LDX_MSH: ("ldxb", "4*([{k}]&0xf)"), bpf.ST: ("st", "M[{k}]"), bpf.STX: ("stx", "M[{k}]"),
    bpf.RET_K: ("ret", "#{k}"), bpf.RET_A: ("ret", "a"), bpf.MISC | bpf.TAX: ("tax", ""),
    bpf.MISC | bpf.TXA: ("txa", ""), bpf.ALU | bpf.NEG: ("neg", ""),
}  # fmt: skip


def lines(program: Sequence[Instruction]) -> list[str]:
    """One line for each instruction; targets of jumps are numbers of instructions."""
    return [_line(at, instruction) for at, instruction in enumerate(program)]


def _line(at: int, instruction: Instruction) -> str:
    code, jt, jf, _ = instruction
    name, operand = _words(at, instruction)
    text = f"({at:03d}) {name:<8} {operand}"
    if code & 7 == bpf.JMP and code != bpf.JMP | bpf.JA:
        text = f"{text:<33} jt {at + 1 + jt}  jf {at + 1 + jf}"
    return text.rstrip()


def _words(at: int, instruction: Instruction) -> tuple[str, str]:
    code, _, _, k = instruction
    if code in _NAMED:
        name, operand = _NAMED[code]
        return name, operand.format(k=k)
    if code in bpf.LOADS:
        return _LOAD[code & 0x18], _place(code, k)
    by = "x" if code & bpf.X else f"#0x{k:x}"
    if code == bpf.JMP | bpf.JA:
        return "ja", str(at + 1 + k)
    if code & 7 == bpf.JMP and code & 0xF0 in _JUMP:
        return _JUMP[code & 0xF0], by
    if code & 7 == bpf.ALU and code & 0xF0 in _ALU:
        return _ALU[code & 0xF0], by
    return "unknown", f"0x{code:02x} 0x{k:x}"


def _place(code: int, k: int) -> str:
    if code & 0xE0 == bpf.IND:
        return f"[x + {k}]"
    field = bpf.FIELDS.get(k - bpf.ANCILLARY)
    return f"#{field}" if field else f"[{k}]"
