"""Whether a build has nothing to do, told without planning: by what its plan was made of when it was built last.

`unchanged/<recipe>-<id>.json` in the cache keeps, of the bundle that was published last from a recipe, all that its
plan was made of: facts of umlbuild's own files and of the libraries beside them, and this machine's answers
(`host.answers`). While they are the same, so are the plan and its keys. These are looked up in the store, the bundle
is compared with dist/ as after planning; if anything is another, or missing, the recipe is planned. A record that is
lost costs the time of that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import umlbuild
from umlbuild import digest
from umlbuild.host import answers, checked, inuse, publish, records
from umlbuild.host.store import Store
from umlbuild.tasks import request as requests

if TYPE_CHECKING:
    from umlbuild.plan.bundle import Plan
    from umlbuild.tasks.request import Request

_WORDS = {"build", "--locked", "--offline"}
_LIBRARIES = ("pydantic", "tomli_w")


@dataclass(frozen=True)
class Known:
    """The bundle of one recipe that is as it was."""

    name: str
    steps: tuple[tuple[str, str], ...]
    """Stage and key of all that its plan stands on, the bundle last."""


def known(request: Request, recipes: Sequence[Path]) -> tuple[Known, ...]:
    """The bundles of a request to build, if all of them are as they were; else ().

    Call it before anything is planned: the code that plans is what it finds now.
    """
    code = _code()
    plain = all(word in _WORDS or word.startswith("recipe=") for word in requests.words())
    if not (plain and request.alone and request.running):
        return ()
    store = Store.at(request.cache)
    found: dict[str, Known] = {}
    for recipe in recipes:
        row = records.read(_place(request.cache, recipe)) or {}
        if row.get("code") != code or row.get("name") in found or (one := _as_it_was(row, request.cache)) is None:
            return ()
        found[one.name] = one
    steps = dict.fromkeys(step for one in found.values() for step in one.steps)
    inuse.register(store, (key for _, key in steps))
    whole = {step for step in steps if store.has(*step)}
    for one in found.values():
        *below, bundle = one.steps
        if bundle not in whole or any(step not in whole and store.path(*step).exists() for step in below):
            return ()
        entry = store.find(*bundle)
        if entry is None or not publish.is_same(entry, request.project / "dist" / one.name):
            return ()
    for step in whole:
        store.used(*step)
    return tuple(found.values())


def remember(cache: Path, plan: Plan, asked: answers.Answers) -> None:
    """Keep what the plan was made of whose bundle has been published."""
    rows = [list(row) for row in asked.rows()]
    if not (rows and asked.whole):
        return
    steps = {step.key: [step.stage, step.key] for part in plan.parts.values() for step in part.walk()}
    row = {"code": _code(), "name": plan.name, "answers": rows, "steps": list(steps.values())}
    place = _place(cache, plan.recipe_path)
    if records.read(place) != row:
        records.write(place, row)


def _as_it_was(row: dict[str, Any], cache: Path) -> Known | None:
    """The bundle of a record, if this machine still answers as it did."""
    try:
        steps = tuple((str(stage), str(key)) for stage, key in row["steps"])
        rows = [(str(kind), str(name), str(answer)) for kind, name, answer in row["answers"]]
        return Known(str(row["name"]), steps) if steps and answers.are_same(rows, cache) else None
    except (KeyError, TypeError, ValueError):
        return None


@lru_cache(maxsize=1)
def _code() -> str:
    """A digest over the facts of the code that plans: umlbuild's files, this Python, the directories of its libraries.

    pip and dpkg change a directory of libraries (its ctime) with each version they put there.
    """
    rows, _ = checked.rows_of(os.path.dirname(umlbuild.__file__), without="__pycache__")
    places = {os.path.dirname(os.path.dirname(spec.origin or "")) for spec in map(find_spec, _LIBRARIES) if spec}
    facts = [(info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns) for info in map(os.stat, sorted(places))]
    return digest.of_json([sys.version, sys.executable, rows, facts])


def _place(cache: Path, recipe: Path) -> Path:
    name = digest.of_bytes(os.fsencode(recipe.absolute()))
    return cache / "unchanged" / f"{recipe.stem[:80]}-{name[:16]}.json"
