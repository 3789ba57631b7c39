"""What our tasks do when doit runs them.

An action never lets an exception out (doit would end the whole run with a traceback) and never prints
to sys.stdout (doit's capture mixes up threads): it tells `progress` and returns a failure.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.action import BaseAction

from umlbuild.errors import Cancelled, UserError
from umlbuild.host import process
from umlbuild.plan.record import record_of, told
from umlbuild.tasks import limit, pull, signals, unchanged
from umlbuild.tasks.failure import Broken, Failed, failure_of
from umlbuild.tasks.make import Site, make, sound
from umlbuild.tasks.progress import board

if TYPE_CHECKING:
    from umlbuild.plan.bundle import Plan
    from umlbuild.plan.step import Step
    from umlbuild.tasks.order import Order


class Action(BaseAction):  # type: ignore[misc]  # doit has no types
    """Base of ours: `perform` may raise; doit gets a worded failure."""

    what = ""
    """What is being done, for the failure's first line."""
    again = ""
    """The command that repeats it."""
    log: Path | None = None

    def __init__(self) -> None:
        self.task: Any = None
        self.out: str | None = None
        self.err: str | None = None
        self.result: object = None
        self.values: Mapping[str, object] = {}

    def execute(self, out: object = None, err: object = None) -> Failed | Broken | None:  # noqa: ARG002
        """Called by doit; `out` and `err` are where a captured action would print."""
        try:
            self.perform()
        except Exception as error:
            # Programs that were told to end fail in many ways: then the signal is the cause.
            cause = Cancelled(f"{self.what}: ended") if process.is_cancelled() else error
            failure = failure_of(cause, self.what, self.log, self.again)
            self.err = failure.message
            return failure
        return None

    def perform(self) -> None:
        """Do it. Raises: UserError, or anything at all for a bug."""
        raise NotImplementedError


class StepAction(Action):
    """Makes one step."""

    def __init__(self, step: Step, site: Site, again: str) -> None:
        super().__init__()
        self.step = step
        self.site = site
        self.what = step.label
        self.log = site.log(step)
        self.again = again

    def __str__(self) -> str:
        return f"make {self.step.label}"

    def perform(self) -> None:
        """Make it, under the eyes of the board."""
        label = self.step.label
        outcome = "failed"
        with signals.step():
            board().begin(label)
            try:
                outcome = make(self.step, self.site, lambda text: board().note(label, text))
                if outcome != "in store":
                    outcome = ", ".join(filter(None, (outcome, pull.push(self.step, self.site))))
                self.result = self.step.key
            finally:
                board().end(label, "" if process.is_cancelled() else outcome)


class Publish(Action):
    """Puts the bundle of one recipe into dist/, and remembers its plan as the one that was built last."""

    def __init__(self, plan: Plan, site: Site, dist: Path, order: Order) -> None:
        super().__init__()
        self.plan = plan
        self.step = plan.bundle
        self.site = site
        self.dist = dist
        self.order = order
        self.shown = order.request.shown(dist)
        self.what = f"publishing {self.shown}"
        self.again = order.request.repeat("build")

    def __str__(self) -> str:
        return self.what

    def perform(self) -> None:
        """Copy what is not there yet; say where it is and how to run it."""
        from umlbuild.host.publish import is_same, publish

        with signals.step():
            changed = not is_same(self.site.entry(self.step), self.dist)
            if changed:
                entry = sound(self.step, self.site, lambda _text: None)
                changed = publish(entry, self.dist)
            self._remember()
        if said := limit.keep_to(self.site.store):
            board().say(said)
        board().say(ready(self.shown, changed=changed))

    def _remember(self) -> None:
        history, recipe = self.site.history, self.plan.recipe_path
        last = history.last(recipe) or {}
        if last.get("plan") != self.step.key:
            for step in self.step.walk():  # those that were in the store may have been made by an older umlbuild
                history.keep_identity(step.stage, step.key, told(step.identity()))
            history.keep_plan(recipe, record_of(recipe, self.step, self.plan.wishes))
        if (answers := self.order.answers.get(recipe)) is not None:
            unchanged.remember(self.order.request.cache, self.plan, answers)


def ready(shown: str, *, changed: bool) -> str:
    """The last line of a build: where the bundle is, and how to start it."""
    state = "is ready" if changed else "is up to date"
    return f"{shown} {state}; start it with {shlex.quote(f'{shown}/run')}"


class Tell(Action):
    """Says how it is: there is nothing to do."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__()
        self.what = what
        self.text = text

    def __str__(self) -> str:
        return self.what

    def perform(self) -> None:
        """Say it."""
        board().say(self.text)


class Refuse(Action):
    """Stands for a verb that was given no recipe."""

    def __init__(self, error: UserError, what: str) -> None:
        super().__init__()
        self.error = error
        self.what = what
        self.again = error.hint

    def __str__(self) -> str:
        return "say that no recipe is given"

    def execute(self, out: object = None, err: object = None) -> Broken:  # noqa: ARG002
        """The failure is the sentence alone: nothing was started."""
        self.err = str(self.error)
        return Broken(str(self.error))
