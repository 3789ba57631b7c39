"""What `doit clean` removes: of a recipe its dist directory, of a step its entry and log. Says each.

Never the whole cache: it may be shared by other projects (UMLBUILD_CACHE), and ccache's files and
downloads are not any recipe's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from umlbuild.host import store
from umlbuild.tasks.action import Action
from umlbuild.tasks.make import Site

if TYPE_CHECKING:
    from umlbuild.plan.step import Step


class CleanDist(Action):
    """Removes one published bundle."""

    def __init__(self, dist: Path, shown: str) -> None:
        super().__init__()
        self.dist = dist
        self.what = f"remove {shown}"

    def __str__(self) -> str:
        return self.what

    def perform(self) -> None:
        """Remove it; a link (the way publishing may keep it) as a link."""
        if self.dist.is_symlink():
            self.dist.unlink()
        store.remove(self.dist)


class CleanStep(Action):
    """Removes the entry of one step from the store."""

    def __init__(self, step: Step, site: Site) -> None:
        super().__init__()
        self.step = step
        self.site = site
        self.what = f"remove {step.label} from the store"

    def __str__(self) -> str:
        return self.what

    def perform(self) -> None:
        """Remove the entry and the step's log."""
        self.site.store.discard(self.step.stage, self.step.key)
        self.site.log(self.step).unlink(missing_ok=True)
