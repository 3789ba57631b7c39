"""Kconfig files: which symbols a kernel tree knows, and what each depends on, is selected by, defaults to.

Reads nothing itself: the caller's function gives the text of a file. It is no second implementation of
Kconfig (make's own decides what sticks); it knows just enough to *explain* what make decided.

Source: Documentation/kbuild/kconfig-language.rst; scripts/kconfig/lexer.l and parser.y (7.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from umlbuild.kconfig_expression import Any, BadExpression, Expression, Not, parse, tokens_of

Read = Callable[[str], str | None]
"""Path below the tree → the file's text, None if there is no such file."""

_TYPES = ("bool", "tristate", "int", "hex", "string")
_STATEMENTS = {
    "config", "menuconfig", "menu", "endmenu", "choice", "endchoice", "if", "endif", "comment",
    "mainmenu", "source", "rsource", "osource", "orsource",
}  # fmt: skip
_MACRO = re.compile(r"[A-Za-z0-9_-]+\s*(:=|\+=|=)|\$\(")


@dataclass(frozen=True)
class Definition:
    """One `config` entry; a symbol may have several."""

    symbol: str
    file: str
    line: int
    type: str = ""
    """bool, tristate, int, hex, string; "" if another definition says it."""
    prompt: str | None = None
    """What menuconfig shows; without one a configuration file cannot set the symbol."""
    prompt_if: Expression | None = None
    depends: tuple[Expression, ...] = ()
    """Its own and those of the menus, ifs and choices around it; all must hold."""
    selects: tuple[tuple[str, Expression | None], ...] = ()
    """Symbols that this one switches on, and under which condition."""
    defaults: tuple[str, ...] = ()
    choice: str | None = None
    """The choice that it is a member of (file:line); one member is y, the others are n."""


@dataclass
class _Block:
    """An open menu, choice or if: what it asks of everything inside."""

    kind: str
    depends: list[Expression] = field(default_factory=list)
    name: str | None = None


def definitions(
    read: Read, root: str = "Kconfig", variables: Mapping[str, str] | None = None
) -> dict[str, list[Definition]]:
    """Symbol → its definitions, of a whole tree; files that are not there are skipped."""
    found: dict[str, list[Definition]] = {}
    for definition in _Parser(read, variables or {}).file(root, []):
        found.setdefault(definition.symbol, []).append(definition)
    return found


class _Parser:
    def __init__(self, read: Read, variables: Mapping[str, str]) -> None:
        self._read = read
        self._variables = variables

    def file(self, path: str, blocks: list[_Block]) -> Iterator[Definition]:
        """The definitions of one file and of those it sources, inside the given blocks."""
        text = self._read(path)
        if text is None:
            return
        entry: Definition | None = None
        for number, line in _statements(text):
            word, _, rest = line.partition(" ")
            word, rest = word.strip(), rest.strip()
            if word in _STATEMENTS:
                if entry is not None:
                    yield _inside(entry, blocks)
                    entry = None
                if word in ("config", "menuconfig"):
                    entry = Definition(rest.split("#")[0].strip(), path, number)
                elif word.endswith("source"):
                    yield from self.file(self._path(path, word, rest), blocks)
                else:
                    self._block(word, rest, f"{path}:{number}", blocks)
            elif entry is not None:
                entry = _attribute(entry, word, rest)
            elif blocks:
                _block_attribute(blocks[-1], word, rest)
        if entry is not None:
            yield _inside(entry, blocks)

    def _path(self, path: str, word: str, rest: str) -> str:
        name = rest.split("#", maxsplit=1)[0].strip().strip("\"'")
        for variable, value in self._variables.items():
            name = name.replace(f"$({variable})", value)
        if "rsource" in word and "/" in path:
            name = f"{path.rsplit('/', 1)[0]}/{name}"
        return name

    def _block(self, word: str, rest: str, where: str, blocks: list[_Block]) -> None:
        if word in ("menu", "comment"):
            # A comment takes `depends on` lines too, but holds nothing.
            if blocks and blocks[-1].kind == "comment":
                blocks.pop()
            blocks.append(_Block(word))
        elif word in ("choice", "if"):
            if blocks and blocks[-1].kind == "comment":
                blocks.pop()
            blocks.append(_Block(word, name=where if word == "choice" else None))
            if word == "if":
                blocks[-1].depends += _expressions(rest)
        elif word.startswith("end"):
            while blocks and blocks.pop().kind != word.removeprefix("end"):
                pass


def _inside(entry: Definition, blocks: list[_Block]) -> Definition:
    around = [block for block in blocks if block.kind != "comment"]
    outer = tuple(expression for block in around for expression in block.depends)
    choice = next((block.name for block in reversed(around) if block.kind == "choice"), None)
    return replace(entry, depends=outer + entry.depends, choice=choice)


def _attribute(entry: Definition, word: str, rest: str) -> Definition:
    if word in _TYPES:
        entry = replace(entry, type=word)
        return _prompted(entry, rest) if rest else entry
    if word in ("def_bool", "def_tristate"):
        return replace(entry, type=word.removeprefix("def_"), defaults=(*entry.defaults, rest))
    if word == "prompt":
        return _prompted(entry, rest)
    if word == "default":
        return replace(entry, defaults=(*entry.defaults, rest))
    if word == "depends":
        return replace(entry, depends=(*entry.depends, *_depends(rest)))
    if word == "select":
        target, condition = _conditional(rest)
        return replace(entry, selects=(*entry.selects, (target, condition)))
    return entry


def _block_attribute(block: _Block, word: str, rest: str) -> None:
    if word == "depends":
        block.depends += _depends(rest)
    elif word == "visible":
        block.depends += _expressions(rest.removeprefix("if").strip())


def _prompted(entry: Definition, rest: str) -> Definition:
    prompt, condition = _conditional(rest)
    return replace(entry, prompt=prompt.strip('"'), prompt_if=condition)


def _depends(rest: str) -> list[Expression]:
    """`on A` or (since 6.19) `on A if B`, which is A where B holds."""
    text, condition = _conditional(rest.removeprefix("on").strip())
    if condition is None:
        return _expressions(text)
    return [Any((Not(condition), expression)) for expression in _expressions(text)]


def _conditional(rest: str) -> tuple[str, Expression | None]:
    """(what stands before a top-level `if`, the condition after it)."""
    try:
        tokens = list(tokens_of(rest))
    except BadExpression:
        return rest, None
    if "if" not in tokens:
        return " ".join(tokens), None
    at = tokens.index("if")
    condition = _expressions(" ".join(tokens[at + 1 :]))
    return " ".join(tokens[:at]), condition[0] if condition else None


def _expressions(text: str) -> list[Expression]:
    try:
        return [parse(text)]
    except BadExpression:
        return []  # only the explanation is poorer by one line


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that say something: comments, help texts and macro definitions are left out."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        number = at + 1
        line = lines[at].expandtabs(8)
        at += 1
        while line.endswith("\\") and at < len(lines):
            line = line[:-1] + " " + lines[at].strip()
            at += 1
        bare = line.strip()
        if bare in ("help", "---help---"):
            at = _after_help(lines, at)
        elif bare and not bare.startswith("#") and not (line[0] != " " and _MACRO.match(bare)):
            yield number, re.sub(r"^(\S+)\s+", r"\1 ", bare)


def _after_help(lines: list[str], at: int) -> int:
    """The first line after a help text, which ends where the indentation falls below its first line's."""
    indent: int | None = None
    while at < len(lines):
        line = lines[at].expandtabs(8)
        if line.strip():
            here = len(line) - len(line.lstrip())
            if indent is None:
                indent = here
            if here < indent or here == 0:
                return at
        at += 1
    return at
