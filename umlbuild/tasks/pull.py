"""Entries from and for the remote store of this build, if UMLBUILD_REMOTE names one."""

from __future__ import annotations

import os
import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from umlbuild.host import offline, process

if TYPE_CHECKING:
    from umlbuild.host.remote import RemoteStore
    from umlbuild.plan.step import Step
    from umlbuild.tasks.make import Site
    from umlbuild.tasks.order import Order


def pull_missing(order: Order) -> bool:
    """Get what the verbs would have to make, the last steps first: below one that came, nothing is needed.

    Whether anything came. Raises: HostError (the remote's settings make no sense).
    """
    remote = _remote()
    if remote is None:
        return False
    came = False
    asked: set[str] = set(order.here)

    def visit(step: Step) -> None:
        nonlocal came
        if step.key in asked or process.is_cancelled():
            return
        asked.add(step.key)
        if _pull(step, order.site(step), remote):
            came = True
            return
        for below in step.inputs.values():
            visit(below)

    wanted = {step.key for step in order.to_make()}
    for step in reversed([step for step in order.steps() if step.key in wanted]):
        if not any(step.key in (below.key for below in other.inputs.values()) for other in order.to_make()):
            visit(step)
    return came


def push(step: Step, site: Site) -> str:
    """Send a step's entry to the remote if that is asked for; what to say of it."""
    remote = _remote()
    return "sent" if remote is not None and remote.push(site.store, step.stage, step.key) else ""


def _pull(step: Step, site: Site, remote: RemoteStore) -> bool:
    started = time.monotonic()
    store = site.store
    with store.locked(step.stage, step.key):
        if site.has(step):
            return True
        if not remote.pull(store, step.stage, step.key):
            return False
    sys.stderr.write(f"{step.label}: from {remote.remote.address} ({time.monotonic() - started:.1f} s)\n")
    return True


def _remote() -> RemoteStore | None:
    address = os.environ.get("UMLBUILD_REMOTE", "")
    return None if offline.is_offline() and "://" in address else _made(address)


@lru_cache(maxsize=2)
def _made(address: str) -> RemoteStore | None:
    if not address:
        return None
    from umlbuild.host.remote import remote_store

    return remote_store(os.environ)
