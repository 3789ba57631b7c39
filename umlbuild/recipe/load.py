"""From TOML text to a Recipe: `extends`, short forms, validation; every problem told at once."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from umlbuild.errors import RecipeError
from umlbuild.recipe import Recipe, checks
from umlbuild.recipe.retell import retell

SHORT_FORMS = (("rootfs", "init"), ("rootfs", "bootstrap"), ("kernel", "source"), ("launch", "sandbox"))
"""Fields where `x = "word"` means `x = { kind = "word" }`."""

Read = Callable[[str], str]
"""Gives the text of a file named in a recipe, relative to it. Raises OSError."""


def data_of(text: str, file: str) -> dict[str, Any]:
    """The data of a TOML text. Raises: RecipeError (with TOML's own line and column)."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([f"{file}: not TOML: {error}"]) from error


def extended(data: dict[str, Any], file: str, read: Read) -> dict[str, Any]:
    """`data` over the recipe that it extends, if any: tables merge, everything else replaces."""
    base_name = data.pop("extends", None)
    if base_name is None:
        return data
    if not isinstance(base_name, str):
        raise RecipeError([f"{file}: extends: must be the path of a recipe"])
    try:
        base = data_of(read(base_name), base_name)
    except OSError as error:
        raise RecipeError([f"{file}: extends: {base_name}: {error.strerror}"]) from error
    if "extends" in base:
        raise RecipeError([f"{base_name}: extends: {file} extends it already; only one level is possible"])
    return merged(base, data)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`; a table with another `kind` than its base replaces it whole."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and _same_kind(below, value):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result


def parse(data: dict[str, Any], file: str) -> Recipe:
    """A Recipe of its data. Raises: RecipeError with all problems."""
    data = _long(data)
    try:
        # As JSON, since a strict model takes TOML's lists for its tuples only there.
        text = json.dumps(data, default=_no_dates)
    except TypeError as error:
        raise RecipeError([f"{file}: {error}"]) from error
    try:
        recipe = Recipe.model_validate_json(text)
    except ValidationError as error:
        raise RecipeError(retell(error, Recipe, file)) from error
    problems = checks.problems(recipe)
    if problems:
        raise RecipeError([f"{file}: {problem}" for problem in problems])
    return recipe


def load(text: str, file: str, read: Read) -> Recipe:
    """A Recipe of its text. Raises: RecipeError."""
    return parse(extended(data_of(text, file), file, read), file)


def _same_kind(below: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    return "kind" not in over or over["kind"] == below.get("kind")


def _long(data: dict[str, Any]) -> dict[str, Any]:
    """`data` with its short forms spelled out."""
    result = dict(data)
    for table, field in SHORT_FORMS:
        inner = result.get(table)
        if isinstance(inner, dict) and isinstance(inner.get(field), str):
            result[table] = {**inner, field: {"kind": inner[field]}}
    networks = result.get("network")
    if isinstance(networks, list):
        result["network"] = [
            {**n, "transport": {"kind": n["transport"]}}
            if isinstance(n, dict) and isinstance(n.get("transport"), str) else n
            for n in networks
        ]  # fmt: skip
    return result


def _no_dates(value: object) -> object:
    raise TypeError(f"{value!r}: dates and times have no place in a recipe")
