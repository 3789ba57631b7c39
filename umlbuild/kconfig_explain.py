"""Why a symbol did not get the value it was asked to have, in the words of the kernel's own Kconfig files.

Pure; what the tree knows comes from `kconfig_language`, what make decided from the final .config.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from umlbuild.kconfig import Unmet
from umlbuild.kconfig_expression import Expression, conjuncts, letter, symbols_of, value_of
from umlbuild.kconfig_language import Definition

Definitions = Mapping[str, Sequence[Definition]]

_MANY = 4
_LEVEL = {"n": 0, "m": 1, "y": 2}


def explain(failed: Iterable[Unmet], known: Definitions, final: Mapping[str, str]) -> list[str]:
    """One line for each failed symbol, followed by indented lines with the reasons."""
    lines: list[str] = []
    for item in failed:
        if item.symbol not in known:
            near = difflib.get_close_matches(item.symbol, known, n=3, cutoff=0.75)
            like = f"; near: {', '.join(near)}" if near else ""
            lines.append(f"{item.symbol}={item.wanted}: this kernel has no such symbol{like}")
            continue
        lines.append(f"{item.symbol}={item.wanted}: it is {item.got}")
        lines += [f"    {reason}" for reason in dict.fromkeys(_reasons(item, known, final))]
    return lines


def _reasons(item: Unmet, known: Definitions, final: Mapping[str, str]) -> Iterator[str]:
    found = False
    if item.wanted == "n" or (item.wanted, item.got) == ("m", "y"):
        for reason in _selected_by(item.symbol, known, final):
            found = True
            yield reason
    else:
        for definition in known[item.symbol]:
            for reason in _blockers(item, definition, known, final):
                found = True
                yield reason
    if found:
        return
    yield from _no_prompt(item, known) or ["make decided so; no dependency explains it"]


def _blockers(
    item: Unmet, definition: Definition, known: Definitions, final: Mapping[str, str]
) -> Iterator[str]:
    """What keeps one definition from being what was wanted."""
    needed = _LEVEL.get(item.wanted, 1)
    where = f"({definition.file}:{definition.line})"
    if definition.type == "bool":
        needed = 1 if item.wanted == "y" else needed  # a bool may be y where its dependency is only m
    for expression in definition.depends:
        for part in conjuncts(expression):
            if value_of(part, final) < needed:
                yield f"depends on {_with_values(part, final)} {where}"
    condition = definition.prompt_if
    if condition is not None and value_of(condition, final) == 0:
        yield f"can only be set where {_with_values(condition, final)} {where}"
    if definition.choice is not None:
        for symbol, others in known.items():
            same = any(other.choice == definition.choice for other in others)
            if symbol != item.symbol and same and final.get(symbol) == "y":
                yield f"{symbol} is chosen instead {where}"
    if item.wanted == "m" and definition.type == "bool":
        yield f"cannot be a module: it is y or n {where}"
    if item.wanted == "m" and final.get("MODULES", "n") == "n":
        yield "modules are off: MODULES=n"


def _selected_by(symbol: str, known: Definitions, final: Mapping[str, str]) -> Iterator[str]:
    for other, others in known.items():
        value = final.get(other, "n")
        if value == "n":
            continue
        for definition in others:
            for target, condition in definition.selects:
                if target == symbol and (condition is None or value_of(condition, final) > 0):
                    yield f"selected by {other}={value} ({definition.file}:{definition.line})"


def _no_prompt(item: Unmet, known: Definitions) -> list[str]:
    """Reasons of a symbol that a configuration cannot set."""
    if any(definition.prompt is not None for definition in known[item.symbol]):
        return []
    selectors = sorted(
        other
        for other, others in known.items()
        if any(target == item.symbol for definition in others for target, _ in definition.selects)
    )
    defaults = [text for definition in known[item.symbol] for text in definition.defaults]
    reason = "cannot be set by itself"
    if selectors:
        more = f" and {len(selectors) - _MANY} more" if len(selectors) > _MANY else ""
        reason += f"; selected by {', '.join(selectors[:_MANY])}{more}"
    if defaults:
        reason += f"; its value follows from: {' / '.join(defaults)}"
    return [reason]


def _with_values(part: Expression, final: Mapping[str, str]) -> str:
    """`A || !B  [A=n, B=y]`; a lone symbol is just `A=n`."""
    symbols = symbols_of(part)
    if str(part) in symbols:
        return f"{part}, which is {final.get(str(part), 'n')}"
    values = ", ".join(f"{symbol}={final.get(symbol, 'n')}" for symbol in symbols)
    return f"{part}, which is {letter(value_of(part, final))} [{values}]"
