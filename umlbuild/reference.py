"""docs/recipe.md, made from the recipe's models: `python -m umlbuild.reference > docs/recipe.md`.

The description, type and default of every field come from the code, so the page cannot be wrong about them;
a test compares it with what this prints.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from umlbuild.recipe import Recipe

_TOLD_BY_MODULE = "umlbuild.kinds.transports."
"""Kinds whose module's docstring is their users' documentation."""

_HEAD = """\
# The recipe

A TOML file, `format = 1`. Unknown keys are errors; all errors of a recipe are told at once. Paths are
relative to the recipe. `extends = "base.toml"` merges this recipe over another one: tables merge key by key,
everything else replaces (one level).

Where a table has only a `kind`, the word alone will do: `init = "systemd"` means
`init = { kind = "systemd" }`.

This page is made from the code (`python -m umlbuild.reference > docs/recipe.md`).
"""


def text() -> str:
    """The whole page."""
    return _HEAD + "".join(_table("", Recipe, set()))


def _table(path: str, model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """A heading, the model's docstring and a row for each field; then the tables below it."""
    if model in seen:
        return
    seen.add(model)
    below: list[tuple[str, type[BaseModel]]] = []
    if path:
        yield f"\n## {path}\n\n{_prose(model)}\n"
    yield "\n| key | type | default | |\n|---|---|---|---|\n"
    described = descriptions_of(model)
    for name, field in model.model_fields.items():
        inner = _models(field.annotation)
        many = get_origin(_bare(field.annotation)) is tuple
        full = f"{path.strip('`[] ')}.{name}" if path else name
        head = f"`[[{full}]]`" if many else f"`[{full}]`"
        for m in inner:
            kind = m.model_fields.get("kind")
            below.append((f'{head} kind = "{get_args(kind.annotation)[0]}"' if kind else head, m))
        text = _described(described.get(name, ""), inner)
        yield f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {text} |\n"
    for head, m in below:
        yield from _table(head, m, seen)


def _prose(model: type[BaseModel]) -> str:
    """What a transport's module says to users, without its sources; of other models, what the model says."""
    if model.__module__.startswith(_TOLD_BY_MODULE):
        module = inspect.getdoc(sys.modules[model.__module__]) or ""
        return "\n\n".join(part for part in module.split("\n\n") if not part.startswith("Source:"))
    return inspect.cleandoc(model.__doc__ or "")


def descriptions_of(model: type[BaseModel]) -> dict[str, str]:
    """Field → the docstring below it in the source, of the model and its bases."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in itertools.pairwise(body.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def _described(description: str, inner: list[type[BaseModel]]) -> str:
    text = description or (inspect.cleandoc(inner[0].__doc__ or "") if len(inner) == 1 else "")
    return " ".join(text.split()).replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if default is PydanticUndefined or default is None or default == ():
        return ""
    if isinstance(default, BaseModel):
        kind = getattr(default, "kind", None)
        return f'`"{kind}"`' if kind else ""
    spelled = {True: "true", False: "false"}.get(default) if isinstance(default, bool) else None
    if isinstance(default, tuple):
        spelled = "[" + ", ".join(f'"{item}"' for item in default) + "]"
    return f"`{spelled or (repr(default) if not isinstance(default, str) else chr(34) + default + chr(34))}`"


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is typing.Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return [m for a in get_args(annotation) for m in _models(a)]
    return []


def _type(annotation: Any) -> str:
    annotation = _bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _models(annotation):
        return "list of tables" if origin is tuple else "table"
    if origin is Literal:
        return " or ".join(f'`"{a}"`' if isinstance(a, str) else f"`{a}`" for a in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}s".replace("s or", " or").replace("`s", "`")
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    if origin in (Union, types.UnionType):
        return " or ".join(_type(a) for a in arguments if a is not type(None))
    return {str: "string", int: "number", bool: "true/false"}.get(annotation, str(annotation))


if __name__ == "__main__":
    sys.stdout.write(text())
