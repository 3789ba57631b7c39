"""`umlbuild filter show|test`: what a recipe's packet filters are, and what they do to the packets of a capture."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from umlbuild.bpf.program import Program
from umlbuild.errors import RecipeError, UserError

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


@dataclass(frozen=True)
class Compiled:
    """One filter of one interface."""

    interface: str
    outgoing: bool
    expressions: tuple[str, ...]
    program: Program
    built: bool
    """Whether it is the bundle's own; else this machine's libpcap made it just now."""

    @property
    def direction(self) -> str:
        """In words."""
        return "egress" if self.outgoing else "filter"

    def passes(self, frame: bytes) -> bool:
        """Whether a frame that somebody else sent passes."""
        from umlbuild.bpf import interpreter

        return interpreter.passes(self.program, frame)


def add_parser(verbs: Verbs) -> None:
    """Mount the verb."""
    verb = verbs.add_parser("filter", help="a recipe's packet filters: show them, try them on a capture")
    parts = verb.add_subparsers(required=True, metavar="show|test")
    show = parts.add_parser("show", help="each filter's size and instructions")
    show.add_argument("recipe", help="a recipe's name or path")
    show.set_defaults(verb=_show)
    test = parts.add_parser(
        "test", help="the verdict on each packet of a capture",
        description="One line a packet: its number, the verdict, its length, what it is. "
        "Nothing is sent; packets are taken for ones that others sent.",
    )  # fmt: skip
    test.add_argument("recipe", help="a recipe's name or path")
    test.add_argument("capture", type=Path, help="a file of tcpdump or wireshark (pcap, pcapng)")
    test.add_argument("--interface", metavar="vecN", help="whose filter, if several have one")
    test.add_argument("--egress", action="store_true", help="the rules for what the guest sends")
    test.set_defaults(verb=_test)


def compiled_of(word: str, directory: Path) -> Iterator[Compiled]:
    """The filters of a recipe: out of the store, or compiled now if they are not there. Raises: UserError."""
    from umlbuild import finding, project
    from umlbuild.host.files import Files
    from umlbuild.host.store import Store
    from umlbuild.lock import Lock
    from umlbuild.plan.filters import filters_step
    from umlbuild.plan.wishes import wishes_of
    from umlbuild.specs.filters import FiltersSpec

    path = finding.find_recipe(word, directory)
    recipe = project.read_recipe(path)
    files = Files(path.parent.absolute(), path.name)
    step = filters_step(recipe, project.read_lock(path, recipe) or Lock(asked=wishes_of(recipe)), files)
    if files.problems:
        raise RecipeError(files.problems)
    if step is None:
        return
    store = Store.at(project.cache_directory(directory))
    entry = store.path(step.stage, step.key) / "filters" if store.has(step.stage, step.key) else None
    assert isinstance(step.spec, FiltersSpec)
    for item in step.spec.filters:
        for outgoing, lines in ((False, item.incoming), (True, item.outgoing)):
            if lines is not None:
                program = _program(item.interface, outgoing, lines, entry, path.name)
                yield Compiled(item.interface, outgoing, lines, program, entry is not None)


def _program(interface: str, outgoing: bool, lines: tuple[str, ...], entry: Path | None, recipe: str) -> Program:
    from umlbuild.bpf import compose, expression
    from umlbuild.bpf import program as bpf
    from umlbuild.host import needs, pcap

    if entry is not None:
        if outgoing:
            return bpf.from_decimal((entry / f"{interface}.egress").read_text())
        return bpf.unpacked((entry / f"{interface}.bpf").read_bytes())
    program = compose.ACCEPT_ALL
    if lines:
        needs.require(pcap.HOSTS, print)
        try:
            program = pcap.compiled(expression.joined(lines))
        except pcap.ExpressionError as error:
            at = f"network[{interface.removeprefix('vec')}].{'egress' if outgoing else 'filter'}"
            raise RecipeError([f"{recipe}: {at}: {error.message}"]) from error
    return program if outgoing else compose.incoming(program)


def _show(options: argparse.Namespace) -> int:
    from umlbuild.bpf import disassembly

    found = list(compiled_of(options.recipe, Path.cwd()))
    for item in found:
        count = len(item.program)
        origin = "in the store" if item.built else "not built yet; compiled by this machine's libpcap"
        print(f"# {item.interface} {item.direction}: {count} instructions, {8 * count} bytes ({origin})")
        for line in item.expressions or ("(all that others sent)",):
            print(f"#   {line}")
        print("\n".join(disassembly.lines(item.program)))
    if not found:
        print("no interface of this recipe has a filter")
    return 0


def _test(options: argparse.Namespace) -> int:
    from umlbuild.bpf import summary
    from umlbuild.host import needs, pcap

    item = _chosen(list(compiled_of(options.recipe, Path.cwd())), options)
    needs.require(pcap.HOSTS, print)
    counts = {True: 0, False: 0}
    for number, (frame, length) in enumerate(pcap.frames(options.capture), 1):
        passed = item.passes(frame)
        counts[passed] += 1
        cut = "" if len(frame) == length else f", only {len(frame)} bytes captured"
        print(f"{number:>6}  {'pass' if passed else 'drop'}  {length:>5}  {summary.of(frame)}{cut}")
    passing, dropped = counts[True], counts[False]
    print(f"{item.interface} {item.direction}: {passing + dropped} packets, {passing} pass, {dropped} drop")
    return 0


def _chosen(found: list[Compiled], options: argparse.Namespace) -> Compiled:
    what = "egress rules" if options.egress else "filter"
    rows = [item for item in found if item.outgoing == options.egress]
    names = ", ".join(item.interface for item in rows)
    if options.interface is not None:
        rows = [item for item in rows if item.interface == options.interface]
    if not rows:
        who = f"{options.interface} has no" if options.interface else "no interface has"
        raise UserError(f"{options.recipe}: {who} {what}", f"those of {names} are there" if names else "")
    if len(rows) > 1:
        raise UserError(f"{options.recipe}: several interfaces have {what}", f"--interface, one of {names}")
    return rows[0]
