"""Makes one step: lock, look again, run its stage in a scratch entry, seal it. Knows nothing of doit."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from umlbuild.errors import Cancelled, HostError
from umlbuild.host import process
from umlbuild.host.history import History
from umlbuild.host.store import Store
from umlbuild.plan.record import told
from umlbuild.tasks import limit
from umlbuild.tasks.progress import board

if TYPE_CHECKING:
    from umlbuild.plan.step import Step
    from umlbuild.specs.build import Build

Note = Callable[[str], None]


@dataclass(frozen=True)
class Site:
    """Where the steps of a build are made, and from where they fetch."""

    cache: Path
    mirrors: Mapping[str, str] = field(default_factory=dict)
    build: Build | None = None
    """How a recipe wants its kernel compiled."""

    @property
    def store(self) -> Store:
        """The store at this site."""
        return Store.at(self.cache)

    @property
    def history(self) -> History:
        """What the cache at this site remembers."""
        return History(self.cache)

    def has(self, step: Step) -> bool:
        """Whether the entry of a step is there and whole."""
        return self.store.has(step.stage, step.key)

    def entry(self, step: Step) -> Path:
        """Where the entry of a step is (also in a shared cache), or would be."""
        return self.store.find(step.stage, step.key) or self.store.path(step.stage, step.key)

    def log(self, step: Step) -> Path:
        """The log of a step."""
        return self.store.log(step.stage, step.key)


def make(step: Step, site: Site, note: Note) -> str:
    """See that the entry of a step is in the store.

    Returns how: "done", "built again, the entry was damaged", or "in store" (another build was faster).
    Raises: what the stage raises; Cancelled when the build is ending.
    """
    for below in step.inputs.values():
        sound(below, site, note)
    store = site.store
    with store.locked(step.stage, step.key, waiting=lambda: note("another build is making it")):
        if site.has(step):
            return "in store"
        if process.is_cancelled():
            raise Cancelled(f"{step.label}: not started, the build is ending")
        damaged = site.entry(step).exists()
        log = site.log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"# {step.label}\n# {step.stage} {step.key}\n")
        started = time.monotonic()
        _run(step, site, note)
        site.history.keep_identity(step.stage, step.key, told(step.identity()))
        site.history.took(step.stage, step.key, step.label, time.monotonic() - started)
        limit.made_something()
        return "built again, the entry was damaged" if damaged else "done"


def sound(step: Step, site: Site, note: Note) -> Path:
    """The entry of a step that is about to be read; made again if it was removed or written to meanwhile.

    Raises: as `make`; HostError if it is another's cache that is damaged.
    """
    store = site.store
    if site.has(step):
        names = store.damage(step.stage, step.key)
        if not names:
            return site.entry(step)
        entry = site.entry(step)
        if entry != store.path(step.stage, step.key):
            raise HostError(
                f"{entry}: damaged: {', '.join(names)}",
                "leave that cache out of UMLBUILD_CACHE_SHARED, or ask its owner for `umlbuild gc --check`",
            )
        if store.discard_damaged(step.stage, step.key):
            board().say(f"{step.label}: damaged ({', '.join(names)}), made again")
    note(f"again: {step.label}")
    make(step, site, note)
    return site.entry(step)


def _run(step: Step, site: Site, note: Note) -> None:
    from umlbuild.specs.build import Build
    from umlbuild.stages.context import Context

    stage = importlib.import_module(f"umlbuild.stages.{step.stage}")
    store = site.store
    inputs = {role: site.entry(below) for role, below in step.inputs.items()}
    with store.working(f"{step.stage}-{step.key[:12]}") as work, store.filling(step.stage, step.key) as out:
        context = Context(
            work=work,
            log=site.log(step),
            sources=step.sources,
            mirrors=site.mirrors,
            downloads=site.cache / "downloads",
            build=site.build or Build(),
            note=note,
        )
        stage.run(step.spec, inputs, out, context)
        if process.is_cancelled():  # an entry of a half-ended program must not be sealed
            raise Cancelled(f"{step.label}: ended, the build was told to stop")
