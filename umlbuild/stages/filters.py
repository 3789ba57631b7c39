"""Filters: compile what the recipe lets in and out, check each program twice, write it as UML and tc read it.

UML goes on without a filter when the kernel refuses one, so nothing is written that this machine's kernel has not
taken: our own checks say which instruction is wrong, the kernel has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from umlbuild.bpf import compose, expression
from umlbuild.bpf import program as bpf
from umlbuild.bpf.program import Program
from umlbuild.errors import StepFailed, UserError
from umlbuild.host import pcap, tooltree
from umlbuild.specs.filters import FiltersSpec
from umlbuild.stages.context import Context

DIRECTORY = "filters"


def run(spec: FiltersSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out/filters`. Raises: StepFailed (libpcap or the kernel refuses an expression)."""
    directory = out / DIRECTORY
    directory.mkdir(mode=0o755)
    tcpdump = tooltree.tool_argv(inputs["tools"], "tcpdump") if "tools" in inputs else ()
    for item in spec.filters:
        context.note(item.interface)
        if item.incoming is not None:
            program = compose.incoming(_compiled(item.incoming, item.interface, tcpdump))
            _check(program, item.interface)
            _write(directory / f"{item.interface}.bpf", bpf.packed(program))
        if item.outgoing is not None:
            program = _compiled(item.outgoing, item.interface, tcpdump)
            _check(program, item.interface)
            _write(directory / f"{item.interface}.egress", f"{compose.bytecode(program)}\n".encode())
    if spec.script is not None:
        _write(directory / "egress", spec.script.encode(), 0o755)


def _compiled(lines: tuple[str, ...], interface: str, tcpdump: Sequence[str]) -> Program:
    if not lines:
        return compose.ACCEPT_ALL
    try:
        return pcap.compiled(expression.joined(lines), tcpdump)
    except UserError as error:
        raise StepFailed(f"the filter of {interface}: {error.message}", error.hint) from error


def _check(program: Program, interface: str) -> None:
    wrong = (*bpf.problems(program), pcap.refused_by_kernel(program))
    if any(wrong):
        raise StepFailed(f"the filter of {interface}: {next(filter(None, wrong))}", "use fewer or simpler expressions")


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.write_bytes(data)
    path.chmod(mode)
