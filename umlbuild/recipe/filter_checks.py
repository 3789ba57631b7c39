"""What is wrong with the filters of `[[network]]`. Pure; `checks` tells it with the rest."""

from __future__ import annotations

from collections.abc import Iterator

from umlbuild.bpf import expression
from umlbuild.recipe import Recipe
from umlbuild.recipe.network import Network


def problems(recipe: Recipe) -> Iterator[str]:
    """All of it, interface by interface; what files hold is looked at when they are read."""
    for number, net in enumerate(recipe.network):
        at = f"network[{number}]"
        if net.filter:
            yield from _filter(net, f"{at}.filter")
        if net.egress:
            yield from _egress(net, f"{at}.egress")


def _filter(net: Network, at: str) -> Iterator[str]:
    assert net.filter is not None
    if not net.transport.FILTERED:
        what = "egress rules are" if net.transport.EGRESS else "nothing is"
        yield (
            f"{at}: {net.transport.kind} takes no filter: UML attaches it to a socket that carries whole frames, and "
            f"would go on without it here; {what} possible"
        )
    if (net.filter.expression is None) == (net.filter.file is None):
        yield f"{at}: needs either an expression or a file"
    if net.filter.expression is not None:
        yield from (f"{at}: {problem}" for problem in expression.problems(net.filter.expression))


def _egress(net: Network, at: str) -> Iterator[str]:
    assert net.egress is not None
    if not net.transport.EGRESS:
        yield f"{at}: what {net.transport.kind} sends comes in at no interface of this host"
    elif net.egress_device is None:
        yield f"{at}.device: must name the interface where the guest's frames come in (a veth's other end)"
    if bool(net.egress.allow) == (net.egress.file is not None):
        yield f"{at}: needs either allow or a file"
    for row, line in enumerate(net.egress.allow):
        yield from (f"{at}.allow[{row}]: {problem}" for problem in expression.problems(line))
