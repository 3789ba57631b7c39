"""The step of the packet filters, and what of them is on the command line and in the launcher. Pure.

libpcap comes from the store, pinned in the lock, like the programs that write images: its version shapes the bytes,
and with the host's own two hosts would make two bundles of one recipe and lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from umlbuild.bpf import expression
from umlbuild.lock import Lock
from umlbuild.plan.inputs import Files
from umlbuild.plan.kernel import ARCHITECTURE
from umlbuild.plan.step import Step
from umlbuild.recipe import Recipe
from umlbuild.recipe.network import Network
from umlbuild.specs.filters import FiltersSpec, FrameFilter
from umlbuild.specs.packages import PackagesSpec
from umlbuild.specs.tools import ToolsSpec

TOOLS = ("tcpdump",)
"""Packages of the programs that compile expressions; libpcap is among what they depend on."""


def wanted(recipe: Recipe) -> tuple[str, ...] | None:
    """The packages of those programs; None if nothing is compiled."""
    return TOOLS if any(net.filter or net.egress for net in recipe.network) else None


def filters_step(recipe: Recipe, lock: Lock, files: Files) -> Step | None:
    """The step whose entry has `filters/`; None if no interface has one. What is wrong is in `files.problems` then."""
    filters = tuple(_filters_of(recipe, files))
    if not filters:
        return None
    script = None
    if any(item.outgoing is not None for item in filters):
        script = (resources.files("umlbuild.launcher") / "egress.sh").read_text()
    inputs = {"tools": _tools_step(lock)} if any(item.is_compiled for item in filters) else {}
    return Step(FiltersSpec(filters=filters, script=script), f"packet filters of {recipe.name}", inputs)


def file_of(net: Network, number: int) -> str | None:
    """The interface's filter below the bundle, which is also its path as UML opens it; None if it has none.

    Relative: UML runs in the machine's private directory, where the launcher puts a copy.
    """
    return f"filters/vec{number}.bpf" if net.filter or net.transport.HEARS_ITSELF else None


def files_of(recipe: Recipe) -> tuple[str, ...]:
    """All of them."""
    named = (file_of(net, number) for number, net in enumerate(recipe.network))
    return tuple(name for name in named if name)


def egress_of(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """(interface, the host's interface) of those that have egress rules."""
    rows = ((f"vec{number}", net.egress_device) for number, net in enumerate(recipe.network) if net.egress)
    return tuple((interface, device) for interface, device in rows if device)


def filtered_fds(recipe: Recipe) -> tuple[int, ...]:
    """Inherited descriptors that must be sockets."""
    found = (net.transport.descriptor for net in recipe.network if net.filter)
    return tuple(fd for fd in found if fd is not None)


def _tools_step(lock: Lock) -> Step:
    packages = Step(
        PackagesSpec(suite=None, architecture=ARCHITECTURE, pins=lock.filters),
        f"{len(lock.filters)} packages of filter tools",
    )
    return Step(ToolsSpec(programs=TOOLS), "filter tools", {"packages": packages})


def _filters_of(recipe: Recipe, files: Files) -> Iterator[FrameFilter]:
    for number, net in enumerate(recipe.network):
        at = f"network[{number}]"
        incoming = outgoing = None
        if net.filter:
            incoming = _lines((net.filter.expression,), net.filter.file, f"{at}.filter", files)
        elif net.transport.HEARS_ITSELF:
            incoming = ()
        if net.egress:
            outgoing = _lines(net.egress.allow, net.egress.file, f"{at}.egress", files)
        if incoming is not None or outgoing is not None:
            yield FrameFilter(interface=f"vec{number}", incoming=incoming, outgoing=outgoing)


def _lines(given: tuple[str | None, ...], file: str | None, at: str, files: Files) -> tuple[str, ...]:
    """The expressions of one direction; those in the recipe were checked with it, those in a file are here."""
    if file is None:
        return tuple(" ".join(line.split()) for line in given if line)
    before = len(files.problems)
    rows = expression.lines_of(files.text(file, f"{at}.file"))
    for number, line in rows:
        for problem in expression.problems(line):
            files.problems.append(f"{files.file}: {at}.file: {file}, line {number}: {problem}")
    if not rows and len(files.problems) == before:
        files.problems.append(f"{files.file}: {at}.file: {file}: there is no expression in it")
    return tuple(line for _, line in rows)
