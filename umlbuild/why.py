"""`umlbuild why`: what would be made again, and which field, file, package or tool version is the cause.

The plan is compared field by field with the one of this recipe that was built last: a step with the same key wherever
that stood (a root without packages becomes the base of one with some), any other with what stood in its slot.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umlbuild import project, stages
from umlbuild.errors import UserError
from umlbuild.forecast import Row, forecast_of
from umlbuild.host.history import History
from umlbuild.host.store import Store
from umlbuild.plan.difference import Change, changes
from umlbuild.plan.record import slots, told
from umlbuild.plan.step import Step
from umlbuild.plan.wishes import wishes_of

_NEVER = "was never built here"
_NEW = "is new: the last build of this recipe had no such step"
_FEW = 5
"""Causes that are told of a step which is not to be made."""


@dataclass(frozen=True)
class Reason:
    """Why one step is not what it was."""

    step: Step
    state: str
    """As in the forecast: "to build", "damaged", "in store" (then it changed, but was built before)."""
    causes: tuple[str, ...]
    """Each "field: old → new", or a sentence."""


def text_of(path: Path, directory: Path, wanted: str = "") -> str:
    """All that `why` prints of one recipe; `wanted` names one step (a stage, or the beginning of a key).

    Reads no network and builds nothing. Raises: UserError (no such step), LockError, RecipeError.
    """
    recipe = project.read_recipe(path)
    cache = project.cache_directory(directory)
    last: Mapping[str, Any] = History(cache).last(path) or {}
    wishes, lock = wishes_of(recipe), project.any_lock(path)
    if lock is None or lock.asked != wishes:
        state = "is missing" if lock is None else "answers other questions"
        return "\n".join(_unresolved(path, state, last, wishes.questions(), wanted))
    plan = project.plan_recipe(path, resolve=False, note=lambda _text: None, cache=cache)
    reasons = list(reasons_of(plan.bundle, last, cache))
    if wanted:
        reasons = _only(reasons, plan.bundle, wanted)
    lines = list(_text(path, reasons, plan.bundle, wanted))
    if any(_NEW in reason.causes for reason in reasons) and last.get("wishes"):
        lines += [f"asked of the archives: {change}" for change in changes(last["wishes"], wishes.questions())]
    return "\n".join(lines)


def reasons_of(bundle: Step, last: Mapping[str, Any], cache: Path) -> Iterator[Reason]:
    """The steps that would be made, or have another key than in the record `last`; inputs first, each once."""
    before: Mapping[str, Any] = last.get("steps", {})
    rows = {row.step.key: row for row in forecast_of(bundle, cache).rows}
    files = {**last.get("sources", {}), **{d: str(p) for step in bundle.walk() for d, p in step.sources.items()}}
    names = {digest: Path(name).name for digest, name in files.items()}
    same = {old["key"]: old for old in before.values()}
    now = {step.key for step in bundle.walk()}
    seen: set[str] = set()
    for slot, step in slots(bundle):
        old = same.get(step.key) or before.get(slot)
        if old is not None and old["key"] != step.key and old["key"] in now:
            old = None  # what stood here is in the plan as ever, elsewhere
        is_other = bool(before) and (old is None or old["key"] != step.key)
        row = rows[step.key]
        is_made = row.state in ("to build", "damaged")
        if step.key in seen or not (is_made or is_other):
            continue
        seen.add(step.key)
        without = _NEW if before else _NEVER
        yield Reason(step, row.state, tuple(_causes(row, old, names, cache, without)))


def _causes(
    row: Row, old: Mapping[str, Any] | None, files: Mapping[str, str], cache: Path, without: str
) -> Iterator[str]:
    """Why a step is not what `old` was; `without` says it where there is nothing to compare it with."""
    step = row.step
    if row.state == "damaged":
        yield f"its entry is damaged: {', '.join(Store.at(cache).verify(step.stage, step.key))}"
        return
    if old is not None and old["key"] == step.key:
        yield "its entry is not in the store any more (removed, or in another cache)"
        return
    if old is None:
        yield without
        return
    history = History(cache)
    then = history.identity(old["stage"], old["key"])
    if old["stage"] != step.stage:
        yield f"stage: {old['stage']} → {step.stage}"
        return
    if then is None:
        yield f"it is not known any more what {old['stage']} {old['key'][:12]} was made of"
        return
    for change in changes(then, told(step.identity()), files):
        yield _worded(change, step)


def _worded(change: Change, step: Step) -> str:
    """A change of an input is told by the input's name: its own causes stand above."""
    head, _, role = change.field.partition(".")
    if head == "inputs":
        below = step.inputs.get(role)
        if below is None:
            return f"input {role}: not read any more"
        return f"input {role}: {below.label}" + (" changed" if change.old else " is new")
    if head == "version":
        return f"umlbuild makes this step in another way: version {change.old} → {change.new}"
    if head.startswith("tools"):
        return str(change).replace("tools[", "program [", 1)
    return str(change).removeprefix("spec.")


def _unresolved(
    path: Path, state: str, last: Mapping[str, Any], wishes: Mapping[str, object], wanted: str
) -> Iterator[str]:
    """What is known while the lock is of no use: the questions. Raises: UserError (no such stage)."""
    resolve = f"umlbuild lock {path.name}"
    known = sorted(stage.name for stage in pkgutil.iter_modules(stages.__path__) if stage.name != "context")
    if wanted and wanted not in known:
        raise UserError(
            f"{wanted}: no such stage; keys and labels of {path.name}'s steps are not known, since its lock {state}",
            f"{resolve}, or name one of {', '.join(known)}",
        )
    yield f"{path.name}: its lock {state}; the next build resolves it (needs the network)"
    before = last.get("wishes")
    if isinstance(before, dict) and before:
        yield from (f"  {change}" for change in changes(before, dict(wishes)))
        yield f"  other changes of the recipe, and which steps are to be made, are shown once it is resolved: {resolve}"
    else:
        yield f"  it {_NEVER}: all steps are to be made, as far as no other recipe has them"
    if wanted:
        yield f"  {wanted}: whether it would be made is not known yet"


def _only(reasons: list[Reason], bundle: Step, wanted: str) -> list[Reason]:
    """The reasons of one step. Raises: UserError."""
    steps = list(bundle.walk())
    if not any(_is(step, wanted) for step in steps):
        stages = ", ".join(dict.fromkeys(step.stage for step in steps))
        raise UserError(f"{wanted}: no such step", f"name one of {stages}, or the first digits of a key")
    return [reason for reason in reasons if _is(reason.step, wanted)]


def _is(step: Step, wanted: str) -> bool:
    return wanted in (step.stage, step.label) or (len(wanted) >= 4 and step.key.startswith(wanted))


def _text(path: Path, reasons: list[Reason], bundle: Step, wanted: str) -> Iterator[str]:
    made = [reason for reason in reasons if reason.state in ("to build", "damaged")]
    if made:
        yield f"{path.name}: {wanted or f'{len(made)} of {len(list(bundle.walk()))} steps'} would be made"
    elif wanted:
        yield f"{path.name}: {wanted} would not be made"
    else:
        yield f"{path.name}: nothing would be made"
    for reason in made:
        yield from _block(reason)
    others = [reason for reason in reasons if reason not in made]
    if others:
        yield "changed since the last build, but nothing to make:"
        for reason in others:
            yield from _block(reason)


def _block(reason: Reason) -> Iterator[str]:
    state = "" if reason.state == "to build" else f" ({reason.state})"
    yield f"{reason.step.stage} {reason.step.key[:12]}  {reason.step.label}{state}"
    few = reason.causes if reason.state in ("to build", "damaged") else reason.causes[:_FEW]
    yield from (f"  {cause}" for cause in few)
    if more := len(reason.causes) - len(few):
        yield f"  … and {more} more"
