"""`umlbuild gc` and `umlbuild du`: what is in the cache, and what of it goes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from umlbuild.errors import HostError, UserError

if TYPE_CHECKING:
    from umlbuild.host.store import Store

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

_DAY_S = 86_400


def add_parsers(verbs: Verbs) -> None:
    """Add both verbs."""
    gc = verbs.add_parser("gc", help="remove what was not used for longest from the cache")
    gc.add_argument("--max-size", metavar="SIZE", help="until the cache fits, like 20G (default: UMLBUILD_CACHE_SIZE)")
    gc.add_argument(
        "--keep", action="append", default=[], metavar="DAYS|RECIPE",
        help="a number: remove what was not used for so many days; a recipe: never remove what it stands on",
    )  # fmt: skip
    gc.add_argument("--check", action="store_true", help="read all files, and remove damaged entries and downloads")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    gc.set_defaults(verb=_gc)
    du = verbs.add_parser("du", help="what is in the cache, by stage")
    du.add_argument("--check", action="store_true", help="read all files, and name what is damaged (exit code 1)")
    du.set_defaults(verb=_du)


def _store() -> Store:
    from umlbuild import project
    from umlbuild.host.store import Store

    return Store(project.cache_directory(Path.cwd()))


def _gc(options: argparse.Namespace) -> int:
    from umlbuild.host import collect, size

    store = _store()
    days = [float(word) for word in options.keep if word.replace(".", "", 1).isdigit()]
    keep = _keys([word for word in options.keep if not word.replace(".", "", 1).isdigit()])
    words = options.max_size or os.environ.get("UMLBUILD_CACHE_SIZE")
    limit = size.parse(words, "--max-size" if options.max_size else "UMLBUILD_CACHE_SIZE") if words else None
    if limit is None and not days and not options.check:
        raise UserError(
            "gc: nothing says what may go",
            "give --max-size 20G or --keep DAYS (--max-size 0 --keep RECIPE keeps nothing else)",
        )
    would = "would be removed" if options.dry_run else "removed"
    before = collect.usage_of(store).size if options.check and not options.dry_run else None
    try:
        if options.check:
            for item, names in collect.check(store):
                print(f"damaged: {item.group} {item.name[:12]}: {', '.join(names)}: {would}")
                if not options.dry_run and not collect.discard(store, item):
                    print(f"  {item.group} {item.name[:12]} is being made just now: left alone")
        if not options.dry_run:
            store.sweep()
        older = max(days) * _DAY_S if days else None
        done = collect.collect(store, limit=limit, older_than_s=older, keep=keep, dry_run=options.dry_run)
    except OSError as error:
        raise HostError(f"{store.root}: cannot clean the cache: {error}", "run gc as the cache's owner") from error
    now = time.time()
    for item in done.removed:
        if item.group != "ccache":
            ago = (now - item.used) / _DAY_S
            print(f"{item.group:<16} {item.name[:12]}  {size.shown(item.size):>8}  used {ago:.1f} days ago: {would}")
    for item in done.busy:
        print(f"{item.group:<16} {item.name[:12]}  in use: kept")
    freed = done.freed if before is None else max(0, before - done.left)  # what was damaged, too
    print(f"{size.shown(freed)} {would}, {size.shown(done.left)} left in {store.root}")
    return 0


def _keys(words: Sequence[str]) -> set[str]:
    """The keys of what recipes stand on. Raises: UserError (no such recipe, not resolved)."""
    from umlbuild import finding, project

    here = Path.cwd()
    cache = project.cache_directory(here)
    return {
        step.key
        for word in words
        for path in finding.find_recipes(word, here)
        for step in project.plan_recipe(path, resolve=False, note=_say, cache=cache).bundle.walk()
    }


def _du(options: argparse.Namespace) -> int:
    from umlbuild.host import collect, size

    store = _store()
    usage = collect.usage_of(store)
    for name, (count, taken) in usage.by_group().items():
        print(f"{name:<16} {count:>6}  {size.shown(taken):>8}")
    print(f"{'in all':<16} {len(usage.items):>6}  {size.shown(usage.size):>8}  (shared files once) in {store.root}")
    damaged = 0
    if options.check:
        for item, names in collect.check(store):
            damaged += 1
            print(f"damaged: {item.group} {item.name[:12]}: {', '.join(names)}")
        print("nothing is damaged" if not damaged else "fix: umlbuild gc --check")
    return 1 if damaged else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)
