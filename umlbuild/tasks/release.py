"""`doit release`: the bundle of a recipe as an archive that can be given away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umlbuild.tasks import signals
from umlbuild.tasks.action import Action
from umlbuild.tasks.make import Site, sound
from umlbuild.tasks.progress import board

if TYPE_CHECKING:
    from umlbuild.plan.bundle import Plan
    from umlbuild.plan.step import Step
    from umlbuild.tasks.request import Request

DEFAULT_VERSION = "0"
"""Where neither the command line nor the recipe says one. Not the date: the same bundle has the same release."""


class Release(Action):
    """Puts the release of one recipe into dist/."""

    def __init__(self, step: Step, site: Site, plan: Plan, request: Request) -> None:
        super().__init__()
        self.step = step
        self.site = site
        self.name = plan.name
        self.version = request.version or plan.recipe.version or DEFAULT_VERSION
        self.key = request.key_file
        self.force = request.force
        self.dist = request.project / "dist" / f"{self.name}-{self.version}"
        self.shown = request.shown(self.dist)
        self.what = f"releasing {self.shown}"
        self.again = request.repeat("release")

    def __str__(self) -> str:
        return self.what

    def perform(self) -> None:
        """Make it, unless it is there; say where it is."""
        from umlbuild.host import release

        wish = release.Wish(self.name, self.version, self.key, self.force)
        with signals.step():
            board().begin(self.what)
            outcome = "failed"
            try:
                def note(text: str) -> None:
                    board().note(self.what, text)

                bundle = sound(self.step, self.site, note)
                changed = release.make(bundle, self.dist, wish, self.site.store, note)
                outcome = "done" if changed else "in store"
            finally:
                board().end(self.what, outcome)
        state = "is ready" if changed else "is up to date"
        board().say(f"{self.shown} {state}; check it with: umlbuild verify {self.shown}")
