"""Pydantic's errors in the language of recipes: `file: key.path: what is wrong; did you mean …?`"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from umlbuild.kinds.transports.legacy import REPLACEMENTS

_WANTED = {
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}


def retell(error: ValidationError, model: type[BaseModel], file: str) -> list[str]:
    """One sentence for each problem, in the order of the recipe."""
    sentences: list[str] = []
    branches: set[str] = set()
    for detail in error.errors(include_url=False):
        path, here, branch = _walk(model, detail["loc"])
        if branch and path in branches:
            continue  # pydantic tells one error for each type that a value could have had
        branches |= {path} if branch else set()
        sentences.append(f"{file}: {path or 'recipe'}: {_sentence(detail, here)}")
    return sentences


def nearest(word: str, choices: Sequence[str]) -> str:
    """"; did you mean "x"?", or nothing if nothing is near."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def _sentence(detail: ErrorDetails, here: Sequence[str]) -> str:
    """What is wrong; `here` are the keys that are possible at the place."""
    kind, context = detail["type"], detail.get("ctx", {})
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    given = detail.get("input")
    if kind == "extra_forbidden":
        return f'unknown key "{last}"{nearest(last, here) or _choices(here)}'
    if kind == "missing":
        return "is missing"
    if kind == "union_tag_not_found":
        return f"needs a kind: one of {_expected(context)}"
    if kind == "union_tag_invalid":
        tag = str(context.get("tag"))
        if tag in REPLACEMENTS and "transport" in detail["loc"]:
            return f'"{tag}" was a transport of UML\'s old network driver, gone in 7.x; use {REPLACEMENTS[tag]}'
        choices = _expected(context)
        return f'"{tag}" is no kind of it; possible are {choices}{nearest(tag, choices.split(", "))}'
    if kind == "literal_error":
        choices = str(context.get("expected", "")).replace(" or ", ", ").replace("'", "")
        return f"{given!r} is not possible; one of {choices}{nearest(str(given), choices.split(', '))}"
    if kind == "value_error":
        return str(context.get("error"))
    if kind in _WANTED:
        return f"{_WANTED[kind]}, not {_spelled(given)}"
    if kind == "string_pattern_mismatch":
        return f"{given!r} is not possible here (it must match {context.get('pattern')})"
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {_spelled(given)}"


def _expected(context: dict[str, Any]) -> str:
    return str(context.get("expected_tags") or context.get("discriminator", "")).replace("'", "")


def _choices(here: Sequence[str]) -> str:
    return f" (possible are {', '.join(sorted(here))})" if here else ""


def _spelled(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _walk(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, list[str], bool]:
    """The dotted path of a place without pydantic's union tags; the keys its table can have; whether the
    error speaks of one branch of a union of plain types.
    """
    path, branch = "", False
    at: Any = model
    keys = _keys(model)
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        tagged = _of_tag(at, part)
        if tagged is not None:  # the tag of a union: not a part of the recipe's path
            at, keys = tagged, _keys(tagged)
            continue
        if isinstance(part, int):
            path += f"[{part}]"
            at = _item(at)
        else:
            if part == "[key]":
                continue
            if _is_plain_union(at):
                branch = True
                continue
            path += f".{part}" if path else part
            at = _field(at, part)
        if not last or not isinstance(at, type) or not issubclass(at, BaseModel):
            keys = _keys(at) if not last else keys
    return path, keys, branch


def _strip(annotation: Any) -> Any:
    """An annotation without Annotated and `| None`."""
    while get_origin(annotation) is typing.Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return _strip(inner[0])
    return annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    annotation = _strip(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        return [m for a in get_args(annotation) for m in _models(a)]
    return []


def _of_tag(annotation: Any, tag: int | str) -> type[BaseModel] | None:
    """The member of a union of models whose kind is `tag`."""
    models = _models(annotation)
    if len(models) < 2:
        return None
    for model in models:
        kind = model.model_fields.get("kind")
        if kind is not None and tag in get_args(kind.annotation):
            return model
    return None


def _is_plain_union(annotation: Any) -> bool:
    """Whether pydantic puts the name of a branch (like "bool") into the path."""
    return get_origin(_strip(annotation)) in (Union, types.UnionType, Literal) and not _models(annotation)


def _field(annotation: Any, name: str) -> Any:
    for model in _models(annotation):
        if name in model.model_fields:
            return model.model_fields[name].annotation
    if get_origin(_strip(annotation)) is dict:
        return get_args(_strip(annotation))[1]
    return None


def _item(annotation: Any) -> Any:
    arguments = get_args(_strip(annotation))
    return arguments[0] if arguments else None


def _keys(annotation: Any) -> list[str]:
    return sorted({name for model in _models(annotation) for name in model.model_fields})
