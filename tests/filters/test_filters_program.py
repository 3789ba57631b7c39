"""Programs: written and read, checked as the kernel does, read aloud."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernelsocket import takes
from libpcap import Compiled

from umlbuild.bpf import compose, disassembly, interpreter, summary
from umlbuild.bpf import program as bpf
from umlbuild.bpf.program import Instruction, Program

GOLDEN = Path(__file__).with_name("golden-disassembly.json")
READ_ALOUD = ("arp or icmp or tcp port 22", "net 10.0.0.0/8", "tcp[tcpflags] & tcp-syn != 0", "ip6 multicast",
              "ip[2:2] - ((ip[0] & 0xf) << 2) > 8")  # fmt: skip
I = Instruction  # noqa: E741
END = I(bpf.RET_K, 0, 0, 0)

BAD: list[tuple[str, Program, str]] = [
    ("empty", (), "0 instructions"),
    ("too long", (END,) * 4097, "4097 instructions"),
    ("unknown", (I(0xFF, 0, 0, 0), END), "(0) unknown code 0xff"),
    ("constant division", (I(bpf.ALU | bpf.DIV | bpf.K, 0, 0, 0), END), "(0) division by zero"),
    ("constant modulo", (I(bpf.ALU | bpf.MOD | bpf.K, 0, 0, 0), END), "(0) division by zero"),
    ("shift", (I(bpf.ALU | bpf.LSH | bpf.K, 0, 0, 32), END), "(0) shift by 32"),
    ("slot", (I(bpf.ST, 0, 0, 16), END), "(0) memory slot 16"),
    ("unset slot", (I(bpf.LD_MEM, 0, 0, 3), END), "(0) reads a memory slot"),
    ("slot set on one way", (I(bpf.JMP | bpf.JEQ, 0, 1, 0), I(bpf.ST, 0, 0, 3), I(bpf.LD_MEM, 0, 0, 3), END),
     "(2) reads a memory slot"),
    ("jump out", (I(bpf.JMP | bpf.JA, 0, 0, 1), END), "(0) jumps out"),
    ("backwards", (END, I(bpf.JMP | bpf.JA, 0, 0, 0xFFFFFFFE), END), "(1) jumps out"),
    ("branch out", (I(bpf.JMP | bpf.JEQ, 0, 1, 0), END), "(0) jumps out"),
    ("no end", (I(bpf.LD_IMM, 0, 0, 0),), "(0) the end is reached"),
    ("unknown ancillary", (I(bpf.LD | bpf.W | bpf.ABS, 0, 0, bpf.ANCILLARY + 5), END), "(0) loads from 0xfffff005"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_the_kernel_would_refuse(program: Program, message: str) -> None:
    assert bpf.problems(program)[0].startswith(message)
    assert not takes(program)


def test_the_longest() -> None:
    program = (I(bpf.LD_IMM, 0, 0, 1),) * (bpf.MOST - 1) + (END,)
    assert bpf.problems(program) == [] and takes(program)


words = st.integers(min_value=0, max_value=0xFFFFFFFF)
instructions = st.builds(
    Instruction, st.one_of(st.sampled_from(sorted(bpf.CODES)), st.integers(0, 0xB8)), st.integers(0, 4),
    st.integers(0, 4), st.one_of(st.integers(0, 40), st.sampled_from((bpf.ANCILLARY, bpf.ANCILLARY + 48)), words),
)  # fmt: skip
programs = st.lists(instructions, max_size=12).map(lambda rows: (*rows, END))
_UNKNOWN_TO_US = {bpf.ANCILLARY + n for n in (12, 16, 40, 52, 56)}
"""The kernel knows these; we do not want them."""


@settings(max_examples=1500, deadline=None)
@given(programs)
def test_the_kernel_refuses_the_same(program: Program) -> None:
    if any(row.code in bpf.LOADS and row.k in _UNKNOWN_TO_US for row in program):
        return
    assert (bpf.problems(program) == []) == takes(program), disassembly.lines(program)


@given(st.lists(st.builds(Instruction, st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), words),
                min_size=1, max_size=30))  # fmt: skip
def test_written_and_read(rows: list[Instruction]) -> None:
    program = tuple(rows)
    assert bpf.unpacked(bpf.packed(program)) == program
    assert bpf.from_decimal(compose.bytecode(program)) == program
    assert len(disassembly.lines(program)) == len(program)


@settings(deadline=None)
@given(programs, st.binary(max_size=80))
@example((I(bpf.MISC | bpf.TAX, 0, 0, 0), I(bpf.ALU | bpf.ADD | bpf.X, 0, 0, 1), I(bpf.RET_A, 0, 0, 0)), b"")
def test_the_prefix_changes_nothing_for_others_frames(program: Program, frame: bytes) -> None:
    if bpf.problems(program):
        return
    whole = compose.incoming(program)
    assert bpf.problems(whole) == []
    assert interpreter.verdict(whole, frame) == interpreter.verdict(program, frame)
    assert interpreter.verdict(whole, frame, interpreter.OWN) == 0


@pytest.mark.parametrize("data", [b"", b"1234567", bytes(12)])
def test_broken_files(data: bytes) -> None:
    with pytest.raises(ValueError, match="no program"):
        bpf.unpacked(data)


@pytest.mark.parametrize("text", ["", "x", "2\n6 0 0 0", "1\n6 0 0", "1\n6 0 300 0", "1\n6 0 0 -1"])
def test_broken_decimals(text: str) -> None:
    with pytest.raises(ValueError):
        bpf.from_decimal(text)


def test_read_aloud(update_golden: bool) -> None:
    found: dict[str, list[str]] = {}
    for expression in READ_ALOUD:
        with Compiled(expression) as compiled:
            found[expression] = disassembly.lines(compose.incoming(compiled.program))
    if update_golden:
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


@given(st.binary(max_size=90))
def test_any_frame_has_a_summary(frame: bytes) -> None:
    assert "\n" not in summary.of(frame) and summary.of(frame)
