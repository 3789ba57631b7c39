"""Kconfig files of values: fragments and `.config`, parsed, merged with their origins, and compared.

Never reads a file: callers hand in text. The Kconfig *language* (what symbols exist and depend on) is
`kconfig_language`.

Source: the kernel's scripts/kconfig/confdata.c (`conf_read_simple`): the last line of a symbol wins,
"# CONFIG_X is not set" is n, other comments are skipped, strings escape `"` and `\\` with a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from umlbuild.errors import UserError

Value = str
"""As .config spells it: y, m, n, a number (decimal or 0x…), or a string with its quotes."""

_SYMBOL = re.compile(r"[A-Za-z0-9_]+")
_SET = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(.*)")
_UNSET = re.compile(r"#\s*CONFIG_([A-Za-z0-9_]+) is not set\s*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"-?[0-9]+|0[xX][0-9a-fA-F]+")


class KconfigSyntaxError(UserError):
    """A line of a fragment or .config that means nothing."""

    def __init__(self, origin: str, line: int, text: str, why: str) -> None:
        super().__init__(
            f"{origin}:{line}: {why}: {text.strip()!r}",
            'write CONFIG_X=y, =m, =n, a number, a "string", or # CONFIG_X is not set',
        )
        self.origin = origin
        self.line = line


@dataclass(frozen=True)
class Request:
    """A value that somebody wants a symbol to have."""

    symbol: str
    """Without CONFIG_."""
    value: Value
    origin: str
    """Who wants it, for messages: a file, `kernel.options`, a kind."""


@dataclass(frozen=True)
class Conflict:
    """Two origins that want different values; the later one won."""

    winner: Request
    loser: Request


@dataclass(frozen=True)
class Unmet:
    """A symbol that did not get the value it was asked to have."""

    symbol: str
    wanted: Value
    got: Value
    """n if the symbol is absent."""


def parse(text: str, origin: str) -> dict[str, Value]:
    """The values of a fragment or .config, in order of their (last) lines.

    Raises: KconfigSyntaxError with the first line that is none.
    """
    values: dict[str, Value] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        bare = line.strip()
        if not bare:
            continue
        if unset := _UNSET.fullmatch(bare):
            symbol, value = unset[1], "n"
        elif bare.startswith("#"):
            continue
        elif given := _SET.fullmatch(bare):
            symbol, value = given[1], given[2].strip()
            if not is_value(value):
                raise KconfigSyntaxError(origin, number, line, "not a Kconfig value")
        else:
            raise KconfigSyntaxError(origin, number, line, "not a line of a kernel configuration")
        values.pop(symbol, None)  # the place of the last line counts: it wins inside a choice, too
        values[symbol] = value
    return values


def is_value(text: str) -> bool:
    """Whether .config could hold this after the equals sign."""
    return text in ("y", "m", "n") or bool(_NUMBER.fullmatch(text) or _STRING.fullmatch(text))


def is_symbol(text: str) -> bool:
    """Whether this can be a symbol's name (without CONFIG_)."""
    return bool(_SYMBOL.fullmatch(text))


def spelled(value: bool | int | str) -> Value:
    """A recipe's value in .config's spelling: true → y, false → n, "m" → m, 64 → 64, other text quoted.

    "y" and "n" mean what they mean in .config, so that a fragment can be copied into a recipe.
    """
    if isinstance(value, bool):
        return "y" if value else "n"
    if isinstance(value, int):
        return str(value)
    if value in ("y", "m", "n") or re.fullmatch(r"0[xX][0-9a-fA-F]+", value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def render(values: Iterable[tuple[str, Value]]) -> str:
    """The text of a .config; n is spelled as a comment, as the kernel does."""
    return "".join(
        f"# CONFIG_{symbol} is not set\n" if value == "n" else f"CONFIG_{symbol}={value}\n"
        for symbol, value in values
    )


def merge(layers: Iterable[tuple[str, Mapping[str, Value]]]) -> tuple[dict[str, Request], list[Conflict]]:
    """What several origins want together; a later layer wins, and the differences are told."""
    merged: dict[str, Request] = {}
    conflicts: list[Conflict] = []
    for origin, values in layers:
        for symbol, value in values.items():
            request = Request(symbol, value, origin)
            before = merged.pop(symbol, None)
            if before is not None and not same(before.value, value):
                conflicts.append(Conflict(winner=request, loser=before))
            merged[symbol] = request
    return merged, conflicts


def unmet(requested: Mapping[str, Value], final: Mapping[str, Value]) -> list[Unmet]:
    """The requests that the final configuration does not honour, by symbol; n equals absent."""
    return [
        Unmet(symbol, wanted, got)
        for symbol, wanted in sorted(requested.items())
        if not same(wanted, got := final.get(symbol, "n"))
    ]


def same(one: Value, other: Value) -> bool:
    """Whether two values mean the same (0x10 is 16, an empty string is not n)."""
    if one == other:
        return True
    if _NUMBER.fullmatch(one) and _NUMBER.fullmatch(other):
        return _number(one) == _number(other)
    return False


def _number(text: str) -> int:
    return int(text, 16) if text[:2].lower() == "0x" else int(text)
