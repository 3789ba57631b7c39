"""Our interpreter, libpcap's and the kernel give the same verdict on random frames."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from expressions import EXPRESSIONS, combinations, frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernelsocket import Pipe
from libpcap import Compiled

from umlbuild.bpf import compose, interpreter
from umlbuild.bpf import program as bpf
from umlbuild.bpf.program import Program
from umlbuild.host import pcap, process

FRAMES = 1200
needs_tcpdump = pytest.mark.skipif(process.find("tcpdump") is None, reason="tcpdump is not installed")


def judge(expression: str, frames: Sequence[bytes]) -> tuple[int, int]:
    """Compare all verdicts; how many frames passed and were dropped."""
    try:
        compiled = Compiled(expression)
    except ValueError as error:
        # What can never match is no filter, says libpcap, and so say we.
        assert "rejects all packets" in str(error)
        return 0, 0
    with compiled:
        program = compiled.program
        assert bpf.problems(program) == []
        passed = 0
        with Pipe(program) as kernel, Pipe(compose.incoming(program)) as behind_prefix:
            for one in frames:
                ours = interpreter.passes(program, one)
                told = {
                    "libpcap": compiled.passes(one), "kernel": kernel.passes(one),
                    "kernel, with prefix": behind_prefix.passes(one),
                    "ours, with prefix": interpreter.passes(compose.incoming(program), one),
                }  # fmt: skip
                assert set(told.values()) == {ours}, f"{expression}: {one.hex()}: ours {ours}, {told}"
                assert not interpreter.passes(compose.incoming(program), one, interpreter.OWN)
                passed += ours
    return passed, len(frames) - passed


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_expression(expression: str) -> None:
    chance = random.Random(expression)
    passed, dropped = judge(expression, [frame(chance) for _ in range(FRAMES)])
    # Frames that all go one way would test little.
    assert passed and (dropped or expression == "1 = 1")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(combinations, st.integers(min_value=0, max_value=1 << 32))
def test_combinations(expression: str, seed: int) -> None:
    chance = random.Random(seed)
    judge(expression, [frame(chance) for _ in range(100)])


@pytest.mark.parametrize("expression", EXPRESSIONS[::4])
def test_libpcaps_optimizer_changes_no_verdict(expression: str) -> None:
    chance = random.Random(f"{expression} again")
    with Compiled(expression) as short, Compiled(expression, optimize=False) as long:
        for _ in range(FRAMES // 4):
            one = frame(chance)
            assert interpreter.verdict(short.program, one) == interpreter.verdict(long.program, one), one.hex()


@needs_tcpdump
@pytest.mark.parametrize("expression", EXPRESSIONS[::6])
def test_tcpdump_compiles_as_libpcap_does(expression: str) -> None:
    with Compiled(expression) as judged:
        assert pcap.compiled(expression) == judged.program


PROGRAMS: dict[str, Program] = {
    # name → what the expressions of libpcap do not use
    "index wraps around": (bpf.Instruction(bpf.LDX_IMM, 0, 0, 0xFFFFFFFF),
                           bpf.Instruction(bpf.LD | bpf.B | bpf.IND, 0, 0, 13), bpf.Instruction(bpf.RET_A, 0, 0, 0)),
    "division by x": (bpf.Instruction(bpf.LD | bpf.B | bpf.ABS, 0, 0, 0), bpf.Instruction(bpf.MISC | bpf.TAX, 0, 0, 0),
                      bpf.Instruction(bpf.LD_IMM, 0, 0, 250), bpf.Instruction(bpf.ALU | bpf.DIV | bpf.X, 0, 0, 0),
                      bpf.Instruction(bpf.RET_A, 0, 0, 0)),
    "modulo x": (bpf.Instruction(bpf.LDX_MSH, 0, 0, 1), bpf.Instruction(bpf.LD_LEN, 0, 0, 0),
                 bpf.Instruction(bpf.ALU | bpf.MOD | bpf.X, 0, 0, 0), bpf.Instruction(bpf.RET_A, 0, 0, 0)),
    "long shift": (bpf.Instruction(bpf.LD | bpf.B | bpf.ABS, 0, 0, 3), bpf.Instruction(bpf.MISC | bpf.TAX, 0, 0, 0),
                   bpf.Instruction(bpf.LD_IMM, 0, 0, 0x80000001), bpf.Instruction(bpf.ALU | bpf.RSH | bpf.X, 0, 0, 0),
                   bpf.Instruction(bpf.ALU | bpf.AND | bpf.K, 0, 0, 1), bpf.Instruction(bpf.RET_A, 0, 0, 0)),
    "slots, negation, jump": (bpf.Instruction(bpf.LD | bpf.W | bpf.ABS, 0, 0, 2), bpf.Instruction(bpf.ST, 0, 0, 15),
                              bpf.Instruction(bpf.JMP | bpf.JA, 0, 0, 1), bpf.Instruction(bpf.RET_K, 0, 0, 9),
                              bpf.Instruction(bpf.LDX_MEM, 0, 0, 15), bpf.Instruction(bpf.MISC | bpf.TXA, 0, 0, 0),
                              bpf.Instruction(bpf.ALU | bpf.NEG, 0, 0, 0),
                              bpf.Instruction(bpf.JMP | bpf.JSET | bpf.K, 0, 1, 4),
                              bpf.Instruction(bpf.RET_K, 0, 0, 0), bpf.Instruction(bpf.RET_K, 0, 0, 1 << 20)),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_like_the_kernel_where_libpcap_is_not(name: str) -> None:
    program = PROGRAMS[name]
    assert bpf.problems(program) == []
    # What is computed is how much passes; to see only whether, end in one of two constants.
    whole = tuple(row for row in program if row.code != bpf.RET_A)
    if whole != program:
        whole += (bpf.Instruction(bpf.JMP | bpf.JEQ | bpf.K, 0, 1, 0), bpf.Instruction(bpf.RET_K, 0, 0, 0),
                  bpf.Instruction(bpf.RET_K, 0, 0, 1 << 20))  # fmt: skip
    chance = random.Random(name)
    with Pipe(whole) as kernel:
        for one in (chance.randbytes(chance.randrange(40)) for _ in range(500)):
            assert interpreter.passes(whole, one) == kernel.passes(one), one.hex()
