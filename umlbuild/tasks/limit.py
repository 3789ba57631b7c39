"""Keeps the cache to UMLBUILD_CACHE_SIZE after a build that made something; one that made nothing looks at nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from umlbuild.errors import UserError

if TYPE_CHECKING:
    from umlbuild.host.store import Store


class _State:
    grew = False


def made_something() -> None:
    """An entry was added by this process."""
    _State.grew = True


def keep_to(store: Store) -> str:
    """Collect if the cache grew and there is a limit; what to say, "" for nothing. A build never fails by it."""
    words = os.environ.get("UMLBUILD_CACHE_SIZE", "")
    if not words or not _State.grew:
        return ""
    from umlbuild.host import collect, size

    _State.grew = False
    try:
        done = collect.collect(store, limit=size.parse(words, "UMLBUILD_CACHE_SIZE"))
    except (OSError, UserError) as error:
        return f"the cache was not cleaned: {error}"
    if not done.removed:
        return ""
    return f"cache: {size.shown(done.freed)} freed, {size.shown(done.left)} left (UMLBUILD_CACHE_SIZE={words})"
