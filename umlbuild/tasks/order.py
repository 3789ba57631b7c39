"""What a request amounts to: its plans, which of their steps must be made, and where."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from umlbuild.errors import FetchError, HostError, RecipeError, UserError
from umlbuild.finding import find_recipes
from umlbuild.host import diskfull
from umlbuild.host.answers import Answers
from umlbuild.tasks import signals, unchanged
from umlbuild.tasks.make import Site
from umlbuild.tasks.pull import pull_missing
from umlbuild.tasks.request import Request

if TYPE_CHECKING:
    from umlbuild.plan.bundle import Plan
    from umlbuild.plan.step import Step
    from umlbuild.tasks.unchanged import Known

PART = {"build": "bundle", "kernel": "kernel", "rootfs": "rootfs", "image": "image", "release": "bundle"}
"""Verb → the part of a plan that it makes."""


def walk(plan: Plan) -> Iterator[Step]:
    """All steps of a plan, inputs first: those of its bundle, and of parts that no bundle is made of."""
    yield from {step.key: step for part in plan.parts.values() for step in part.walk()}.values()


@dataclass(frozen=True)
class Order:
    """The plans of a request. Which entries are there is looked up once, when the tasks are made."""

    request: Request
    plans: tuple[Plan, ...]
    unlocked: tuple[str, ...]
    """Names of recipes without a usable lock, when nothing is to run: their steps are not known."""
    here: frozenset[str]
    """Keys of the steps whose entries are in the store and whole."""
    damaged: frozenset[str]
    """Keys of the steps whose entries are in the store and not whole."""
    answers: Mapping[Path, Answers] = field(default_factory=dict)
    """Recipe → what its plan is made of."""
    unchanged: tuple[Known, ...] = ()
    """The bundles of a request that are all as they were when they were built; then there are no plans."""

    def site(self, step: Step) -> Site:
        """Where a step is made (with the mirrors of the first plan that has it)."""
        return self._sites.get(step.key) or Site(self.request.cache)

    @cached_property
    def _sites(self) -> dict[str, Site]:
        found: dict[str, Site] = {}
        for plan in self.plans:
            site = Site(self.request.cache, plan.mirrors, plan.recipe.build)
            for step in walk(plan):
                found.setdefault(step.key, site)
        return found

    def steps(self) -> Iterator[Step]:
        """All steps, inputs first, each key once."""
        seen: set[str] = set()
        for plan in self.plans:
            for step in walk(plan):
                if step.key not in seen:
                    seen.add(step.key)
                    yield step

    def needed(self, goal: Step) -> list[Step]:
        """What a verb waits for: its step, and every damaged entry below it."""
        return [*(s for s in goal.walk() if s.key in self.damaged and s is not goal), goal]

    def below(self, step: Step) -> list[Step]:
        """The steps that must come before a step: none if it is in the store. `list` and `clean` see all."""
        if self.request.running and step.key in self.here:
            return []
        return list({below.key: below for below in step.inputs.values()}.values())

    def to_make(self) -> list[Step]:
        """The steps that the asked verbs will have to make."""
        found: dict[str, Step] = {}

        def visit(step: Step) -> None:
            if step.key in self.here or step.key in found:
                return
            for below in step.inputs.values():
                visit(below)
            found[step.key] = step

        for plan in self.plans:
            for verb in self.request.verbs:
                for step in self.needed(plan.parts[PART[verb]]):
                    visit(step)
        return list(found.values())


@lru_cache(maxsize=4)
def order_of(request: Request) -> Order:
    """Read, resolve (only if tasks will run) and plan the recipes; check the host for what is to be done.

    Raises: UserError (no such recipe, bad recipe or lock, something missing on this machine).
    """
    if not request.recipes:
        return Order(request, (), (), frozenset(), frozenset())
    from umlbuild.host import offline

    if request.offline:
        os.environ[offline.VARIABLE] = "1"
    if request.running:
        signals.install()
        if "release" in request.verbs:
            _check_release(request)
    paths = find_recipes(request.recipes, request.started)
    if known := unchanged.known(request, paths):
        return Order(request, (), (), frozenset(), frozenset(), unchanged=known)
    from umlbuild.project import plan_recipe, read_recipe

    # Plans and the indices of archives are many objects with hardly a cycle: to look for these was 6 % of a small edit.
    gc.set_threshold(200_000)
    unlocked: list[str] = []

    def planned() -> Order:
        plans: list[Plan] = []
        answers = {path: Answers() for path in paths}
        for path in paths:
            try:
                plans.append(
                    plan_recipe(
                        path, resolve=request.running, note=_note, cache=request.cache, locked=request.locked,
                        answers=answers[path],
                    )
                )  # fmt: skip
            except OSError as error:
                if (problem := diskfull.worded(error, request.cache)) is error:
                    raise
                raise problem from error
            except UserError as error:
                diskfull.worded(error, request.cache)
                if request.running or isinstance(error, (RecipeError, HostError, FetchError)):
                    raise
                _note(f"{path.name}: its steps are not known yet: {error.message}")
                unlocked.append(read_recipe(path).name)
        _refuse_same_names(plans)
        return _look(request, tuple(plans), tuple(unlocked), answers)

    order = planned()
    if request.running and os.environ.get("UMLBUILD_REMOTE") and order.to_make() and pull_missing(order):
        order = _look(request, order.plans, order.unlocked, order.answers)
    if request.running and (steps := order.to_make()):
        from umlbuild.host import needs

        if needs.require_for([step.spec for step in steps], request.cache, _note):
            order = planned()  # keys name the versions of compilers, which were not there before
        Site(request.cache).store.sweep()
    return order


def _check_release(request: Request) -> None:
    """What a release needs besides its bundle, before any work. Raises: UserError."""
    from umlbuild.host import needs, release, signing

    programs = ["zstd"]
    key = request.key_file
    if request.version:
        release.check_version(request.version)
    if key:
        programs.append(signing.PROGRAMS[signing.kind_of(key)])
    needs.require(programs, _note)
    if key:
        signing.check(key)


def _look(
    request: Request, plans: tuple[Plan, ...], unlocked: tuple[str, ...], answers: Mapping[Path, Answers]
) -> Order:
    site = Site(request.cache)
    if request.running:
        from umlbuild.host import inuse

        inuse.register(site.store, {step.key for plan in plans for step in walk(plan)})
    here: set[str] = set()
    damaged: set[str] = set()
    for plan in plans:
        for step in walk(plan):
            if site.has(step):
                here.add(step.key)
                if request.running:
                    site.store.used(step.stage, step.key)
            elif site.entry(step).exists():
                damaged.add(step.key)
    return Order(request, plans, unlocked, frozenset(here), frozenset(damaged), answers)


def _refuse_same_names(plans: list[Plan]) -> None:
    seen: dict[str, Path] = {}
    problems: list[str] = []
    for plan in plans:
        if other := seen.get(plan.name):
            problems.append(f"{plan.recipe_path}: name: {plan.name!r} is also the name of {other}")
        seen[plan.name] = plan.recipe_path
    if problems:
        raise RecipeError(problems)


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
