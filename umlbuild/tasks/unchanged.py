"""Whether a build has nothing to do, told without planning: by what its plan was made of when it was built last.

`unchanged/<recipe>-<id>.json` in the cache keeps, of the bundle that was published last from a recipe, all that its
plan was made of: facts of umlbuild's own files and of its libraries, and this machine's answers (`host.answers`).
While they are the same, so are the plan and its keys; these are looked up in the store, and the bundle is compared
with dist/, as after planning. If anything is another or missing, the recipe is planned: a record that is lost costs
the time of that.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import umlbuild
from umlbuild import digest
from umlbuild.host import answers, inuse, publish, records
from umlbuild.host.history import History
from umlbuild.host.store import Store
from umlbuild.tasks import request as requests

if TYPE_CHECKING:
    from umlbuild.plan.bundle import Plan
    from umlbuild.tasks.request import Request

_WORDS = {"build", "--locked", "--offline"}
_LIBRARIES = ("pydantic", "pydantic_core", "typing_extensions", "tomli_w")
_NAME = re.compile(r"[\w.+-]{1,250}", re.ASCII)


@dataclass(frozen=True)
class Known:
    """The bundle that was published last from one recipe."""

    code: str
    """What `_code` was."""
    name: str
    steps: tuple[tuple[str, str], ...]
    """Stage and key of all that its plan stands on, the bundle last."""
    answers: tuple[answers.Row, ...]
    """What its plan was made of."""


def known(request: Request, recipes: Sequence[Path]) -> tuple[Known, ...]:
    """The bundles of a request to build, if all of them are as they were; else ().

    Call it before anything is planned: the code that plans is what it finds now.
    """
    code = _code()
    words = requests.words()
    plain = "build" in words and all(word in _WORDS or word.startswith("recipe=") for word in words)
    if not (code and plain and request.alone and request.running):
        return ()
    rows = [_recorded(request.cache, recipe) for recipe in recipes]
    found = [row for row in rows if row is not None and row.code == code]
    if len(found) < len(rows) or len({row.name for row in found}) < len(found):
        return ()
    store = Store.at(request.cache)
    steps = dict.fromkeys(step for row in found for step in row.steps)
    inuse.register(store, (key for _, key in steps))
    there = {step for step in steps if store.has(*step)}
    for row in found:
        *below, bundle = row.steps
        if bundle not in there or any(step not in there and store.path(*step).exists() for step in below):
            return ()
        entry = store.find(*bundle)
        if entry is None or not publish.is_same(entry, request.project / "dist" / row.name):
            return ()
    # Last, since files are read for it.
    if not all(answers.are_same(row.answers, request.cache) for row in found):
        return ()
    for step in there:
        store.used(*step)
    return tuple(found)


def remember(cache: Path, plan: Plan, asked: answers.Answers) -> None:
    """Keep what the plan was made of whose bundle has been published."""
    steps = {step.key: (step.stage, step.key) for part in plan.parts.values() for step in part.walk()}
    row = Known(_code(), plan.name, tuple(steps.values()), tuple(asked.rows()))
    if row.code and asked.complete and row != _recorded(cache, plan.recipe_path):
        records.write(_place(cache, plan.recipe_path), asdict(row))


def _recorded(cache: Path, recipe: Path) -> Known | None:
    """What was kept of a recipe; None if there is nothing, it is damaged, or `why` could not explain the next edit."""
    row: dict[str, Any] = records.read(_place(cache, recipe)) or {}
    try:
        found = Known(
            row["code"], row["name"], tuple((stage, key) for stage, key in row["steps"]),
            tuple((kind, name, answer) for kind, name, answer in row["answers"]),
        )  # fmt: skip
        names = [found.code, found.name, *(name for step in found.steps for name in step)]
        sound = found.steps and found.answers and all(_NAME.fullmatch(name) for name in names)
    except (KeyError, TypeError, ValueError):
        return None
    last = History(cache).last(recipe) or {}
    return found if sound and last.get("plan") == found.steps[-1][1] else None


@lru_cache(maxsize=1)
def _code() -> str:
    """A digest over the facts of the code that plans: umlbuild's files, this Python, its libraries; "" if they cannot
    be told.

    A library's first file stands for all of it: pip and dpkg put each file of a version in the place of the old one.
    """
    try:
        paths = sorted(_files_below(os.path.realpath(os.path.dirname(umlbuild.__file__))))
        for spec in filter(None, map(find_spec, _LIBRARIES)):
            paths += [origin := spec.origin or "", os.path.dirname(os.path.dirname(origin))]
        facts = ((path, os.stat(path)) for path in paths)
        rows = [(path, i.st_dev, i.st_ino, i.st_size, i.st_mtime_ns, i.st_ctime_ns) for path, i in facts]
        return digest.of_json([sys.version, sys.executable, rows])
    except (OSError, ValueError):  # a file that just went, a zip, a path that is no text
        return ""


def _files_below(top: str) -> Iterator[str]:
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if name != "__pycache__"]
        yield from (os.path.join(directory, file) for file in files)


def _place(cache: Path, recipe: Path) -> Path:
    name = digest.of_bytes(os.fsencode(recipe.absolute()))
    return cache / "unchanged" / f"{recipe.stem[:80]}-{name[:16]}.json"
