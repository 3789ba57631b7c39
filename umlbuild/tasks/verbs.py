"""The verbs and steps as doit tasks.

A recipe's verbs stand on step tasks, which are named by stage and key: recipes with the same kernel
share one task. Only what has to be made is hung below a step that is not in the store, so a build with
nothing to do looks at one entry, and an input that was cleaned away is not made again for nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from umlbuild.errors import UserError
from umlbuild.tasks import request as requests
from umlbuild.tasks.action import Publish, Refuse, StepAction, Tell, ready
from umlbuild.tasks.clean import CleanDist, CleanStep
from umlbuild.tasks.make import Site
from umlbuild.tasks.options import PARAMS
from umlbuild.tasks.order import PART, Order, order_of
from umlbuild.tasks.release import Release
from umlbuild.tasks.reporter import OURS

if TYPE_CHECKING:
    from umlbuild.plan.step import Step
    from umlbuild.tasks.request import Request
    from umlbuild.tasks.unchanged import Known

TaskDict = dict[str, Any]
_BUNDLE_FILES = ("run", "linux", "root.img", "manifest.toml")


def task_build() -> Iterator[TaskDict]:
    """build the bundle of each recipe: dist/NAME"""
    yield from _verb("build", "build the bundle of each recipe into dist/NAME")


def task_kernel() -> Iterator[TaskDict]:
    """make the kernel only"""
    yield from _verb("kernel", "make only the kernel")


def task_rootfs() -> Iterator[TaskDict]:
    """make the root file system only"""
    yield from _verb("rootfs", "make only the root file system")


def task_image() -> Iterator[TaskDict]:
    """make the disk image only"""
    yield from _verb("image", "make only the disk image")


def task_release() -> Iterator[TaskDict]:
    """pack the bundle of each recipe to be given away: dist/NAME-VERSION"""
    yield from _verb("release", "pack each bundle into dist/NAME-VERSION (version=1.2 key=FILE force=1)")


def task_step() -> Iterator[TaskDict]:
    """the single steps of the recipes"""
    order = _order()
    if not order.plans:
        return
    yield {"basename": "step", "name": None, "doc": "the steps of these recipes", "meta": OURS}
    for step in order.steps():
        site = order.site(step)
        yield {
            "basename": "step",
            "name": _short(step),
            "doc": step.label,
            "title": _title,
            "actions": [StepAction(step, site, order.request.repeat(order.request.verbs[0]))],
            "task_dep": [f"step:{_short(below)}" for below in order.below(step)],
            "targets": [site.entry(step)],
            "uptodate": [_Fresh(step, site)],
            "clean": [CleanStep(step, site)],
            "meta": OURS,
        }


def _verb(verb: str, doc: str) -> Iterator[TaskDict]:
    order = _order()
    if order.unchanged:
        if verb == "build":
            yield {"basename": verb, "name": None, "doc": doc, "params": PARAMS, "meta": OURS}
            yield from (_up_to_date(known, order.request) for known in order.unchanged)
        return
    if not order.plans:
        yield _without_recipe(verb, doc, order)
        return
    yield {"basename": verb, "name": None, "doc": doc, "params": PARAMS, "meta": OURS}
    for plan in order.plans:
        step = plan.parts[PART[verb]]
        site = order.site(step)
        task: TaskDict = {
            "basename": verb,
            "name": plan.name,
            "doc": f"{step.label}, from {plan.recipe_path.name}",
            "title": _title,
            "task_dep": [f"step:{_short(needed)}" for needed in order.needed(step)],
            "meta": OURS,
        }
        if verb == "build":
            dist = order.request.project / "dist" / plan.name
            task["actions"] = [Publish(plan, site, dist, order)]
            task["targets"] = [dist / name for name in _BUNDLE_FILES]
            task["clean"] = [CleanDist(dist, order.request.shown(dist))]
        elif verb == "release":
            task["actions"] = [Release(step, site, plan, order.request)]
        else:
            text = f"{verb} ({step.label}) is in {order.request.shown(site.entry(step))}"
            task["actions"] = [Tell(text, text)]
            task["clean"] = [CleanStep(step, site)]
        yield task


def _up_to_date(known: Known, request: Request) -> TaskDict:
    shown = request.shown(request.project / "dist" / known.name)
    return {
        "basename": "build",
        "name": known.name,
        "doc": f"bundle {known.name}",
        "title": _title,
        "actions": [Tell(f"publishing {shown}", ready(shown, changed=False))],
        "meta": OURS,
    }


def _without_recipe(verb: str, doc: str, order: Order) -> TaskDict:
    from umlbuild.finding import all_recipes

    request = order.request
    found = list(dict.fromkeys(path.name for path in all_recipes(request.started)))
    names = ", ".join(found)
    error = UserError(
        f"{verb}: which recipe? " + (f"found: {names}" if found else f"none is in {request.started}"),
        f"{request.command} {verb} recipe={found[0] if found else 'FILE.toml'}",
    )
    task: TaskDict = {
        "basename": verb,
        "doc": f"{doc} ({'recipe=… of: ' + names if found else 'recipe=FILE.toml'})",
        "actions": [Refuse(error, verb)],
        "params": PARAMS,
        "meta": OURS,
    }
    if verb == "build":  # no lock, so no steps; but an old bundle may be there
        old = [request.project / "dist" / name for name in order.unlocked]
        task["clean"] = [CleanDist(dist, request.shown(dist)) for dist in old]
    return task


def _order() -> Order:
    """The order of this process. A problem of the user's ends it here: doit knows no such exit code."""
    try:
        return order_of(requests.read())
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None


def _short(step: Step) -> str:
    return f"{step.stage}-{step.key[:12]}"


def _title(task: Any) -> str:
    return str(task.doc or task.name)


class _Fresh:
    """Whether a step's entry is in the store (doit's `uptodate`)."""

    def __init__(self, step: Step, site: Site) -> None:
        self._step = step
        self._site = site

    def __call__(self) -> bool:
        return self._site.has(self._step)
