"""Kconfig's dependency expressions: parsed, evaluated in three values, and split into what is unmet. Pure.

Source: Documentation/kbuild/kconfig-language.rst, "Menu dependencies": n, m, y are 0, 1, 2; `!` is
2-x, `&&` the smaller, `||` the larger; a comparison is y or n. Macros such as $(cc-option,…) are tests
of the compiler that only make can do: they are opaque here and count as met.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Tristate = int
"""0 is n, 1 is m, 2 is y."""

_LEVEL: dict[str, Tristate] = {"n": 0, "m": 1, "y": 2}
_LETTER = "nmy"
_TOKEN = re.compile(r"&&|\|\||!=|<=|>=|[!=<>()]|[A-Za-z0-9_.+/-]+")
_OPERATORS = ("=", "!=", "<", ">", "<=", ">=")


@dataclass(frozen=True)
class Atom:
    """A symbol, a constant (y, m, n, a number, "text") or an opaque macro."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Compare:
    """`left operator right`."""

    left: Atom
    operator: str
    right: Atom

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}"


@dataclass(frozen=True)
class Not:
    """`!of`."""

    of: Expression

    def __str__(self) -> str:
        return f"!({self.of})" if isinstance(self.of, All | Any) else f"!{self.of}"


@dataclass(frozen=True)
class All:
    """`a && b && …`."""

    of: tuple[Expression, ...]

    def __str__(self) -> str:
        return " && ".join(f"({part})" if isinstance(part, Any) else str(part) for part in self.of)


@dataclass(frozen=True)
class Any:
    """`a || b || …`."""

    of: tuple[Expression, ...]

    def __str__(self) -> str:
        return " || ".join(str(part) for part in self.of)


Expression = Atom | Compare | Not | All | Any


class BadExpression(ValueError):
    """Text that is no expression."""


def parse(text: str) -> Expression:
    """The expression that a text spells. Raises: BadExpression."""
    tokens = list(tokens_of(text))
    expression, rest = _any(tokens)
    if rest:
        raise BadExpression(f"{text!r}: {rest[0]!r} does not belong there")
    return expression


def tokens_of(text: str) -> Iterator[str]:
    """Words, quoted texts, macros and operators, in order; a `#` ends the text."""
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "#":
            return
        elif text[at] in "\"'":
            end = text.find(text[at], at + 1)
            end = len(text) if end < 0 else end + 1
            yield f'"{text[at + 1 : end - 1]}"'
            at = end
        elif text.startswith("$(", at):
            end = _macro_end(text, at)
            yield text[at:end]
            at = end
        elif found := _TOKEN.match(text, at):
            yield found[0]
            at = found.end()
        else:
            raise BadExpression(f"{text!r}: {text[at]!r} does not belong there")


def value_of(expression: Expression, values: Mapping[str, str]) -> Tristate:
    """What an expression is with these values; a symbol without one is n."""
    match expression:
        case Atom(text):
            if text.startswith("$("):
                return 2
            return _LEVEL.get(_meaning(text, values), 0)
        case Compare(left, operator, right):
            return 2 if _holds(_meaning(left.text, values), operator, _meaning(right.text, values)) else 0
        case Not(of):
            return 2 - value_of(of, values)
        case All(of):
            return min(value_of(part, values) for part in of)
        case Any(of):
            return max(value_of(part, values) for part in of)


def conjuncts(expression: Expression) -> tuple[Expression, ...]:
    """The parts that must all hold."""
    return expression.of if isinstance(expression, All) else (expression,)


def symbols_of(expression: Expression) -> list[str]:
    """The symbols of an expression in order, each once."""
    match expression:
        case Atom(text):
            return [text] if re.fullmatch(r"[A-Z0-9_a-z]*[A-Z][A-Z0-9_a-z]*", text) else []
        case Compare(left, _, right):
            return list(dict.fromkeys([*symbols_of(left), *symbols_of(right)]))
        case Not(of):
            return symbols_of(of)
        case All(of) | Any(of):
            return list(dict.fromkeys(symbol for part in of for symbol in symbols_of(part)))


def letter(value: Tristate) -> str:
    """n, m or y."""
    return _LETTER[value]


def _meaning(text: str, values: Mapping[str, str]) -> str:
    if text.startswith('"') or text in _LEVEL:
        return text.strip('"')
    if text in values:
        return values[text].strip('"')
    return text if re.fullmatch(r"-?[0-9]+|0[xX][0-9a-fA-F]+", text) else "n"


def _holds(left: str, operator: str, right: str) -> bool:
    try:
        one, other = float(int(left, 0)), float(int(right, 0))
    except ValueError:
        return (left == right) if operator == "=" else (left != right) if operator == "!=" else False
    return {
        "=": one == other, "!=": one != other, "<": one < other,
        ">": one > other, "<=": one <= other, ">=": one >= other,
    }[operator]  # fmt: skip


def _any(tokens: list[str]) -> tuple[Expression, list[str]]:
    first, tokens = _all(tokens)
    parts = [first]
    while tokens and tokens[0] == "||":
        part, tokens = _all(tokens[1:])
        parts.append(part)
    return (first if len(parts) == 1 else Any(_flat(parts, Any))), tokens


def _all(tokens: list[str]) -> tuple[Expression, list[str]]:
    first, tokens = _not(tokens)
    parts = [first]
    while tokens and tokens[0] == "&&":
        part, tokens = _not(tokens[1:])
        parts.append(part)
    return (first if len(parts) == 1 else All(_flat(parts, All))), tokens


def _flat(parts: list[Expression], kind: type[All] | type[Any]) -> tuple[Expression, ...]:
    return tuple(one for part in parts for one in (part.of if isinstance(part, kind) else (part,)))


def _not(tokens: list[str]) -> tuple[Expression, list[str]]:
    if not tokens:
        raise BadExpression("an expression ends too early")
    head, *rest = tokens
    if head == "!":
        of, rest = _not(rest)
        return Not(of), rest
    if head == "(":
        inner, rest = _any(rest)
        if not rest or rest[0] != ")":
            raise BadExpression("a parenthesis is not closed")
        return inner, rest[1:]
    if head in (")", "&&", "||", *_OPERATORS):
        raise BadExpression(f"{head!r} does not belong there")
    if len(rest) >= 2 and rest[0] in _OPERATORS and rest[1] not in ("(", ")", "!", "&&", "||", *_OPERATORS):
        return Compare(Atom(head), rest[0], Atom(rest[1])), rest[2:]
    return Atom(head), rest


def _macro_end(text: str, at: int) -> int:
    depth = 0
    for index in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0 and index > at + 1:
            return index + 1
    return len(text)
