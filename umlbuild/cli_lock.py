"""`umlbuild lock`, `umlbuild vendor`: the lock made or refreshed, and a directory for a place without network."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parsers(verbs: Verbs) -> None:
    """Mount the two verbs."""
    lock = verbs.add_parser(
        "lock", help="write or refresh a recipe's lock", usage="umlbuild lock RECIPE [--update [PACKAGE …]]",
        description="Makes RECIPE.lock.toml answer the recipe; what it has answered already is kept. "
        "Prints a changelog. Debian's apt resolves, signatures checked.",
    )  # fmt: skip
    lock.add_argument("recipe", help="a recipe's name or path")
    lock.add_argument(
        "--update", nargs="*", metavar="PACKAGE",
        help="take the newest version of these packages, or of all if none is named",
    )  # fmt: skip
    lock.set_defaults(verb=_lock)

    vendor = verbs.add_parser(
        "vendor", help="everything a build fetches, in one directory",
        description="Writes the recipe, its lock and files, and all packages and tarballs into DIRECTORY (new or "
        "empty). `umlbuild build` works there without any network.",
    )  # fmt: skip
    vendor.add_argument("recipe", help="a recipe's name or path")
    vendor.add_argument("directory", type=Path, metavar="DIRECTORY")
    vendor.set_defaults(verb=_vendor)


def _lock(options: argparse.Namespace) -> int:
    from umlbuild import finding, project
    from umlbuild import lock as locks
    from umlbuild.errors import LockError
    from umlbuild.lock import Lock
    from umlbuild.resolving import resolved

    here = Path.cwd()
    for path in finding.find_recipes(options.recipe, here):
        recipe = project.read_recipe(path)
        file = locks.path_of(path).name
        old: Lock | None = None
        try:
            old = project.any_lock(path)
        except LockError as error:
            _note(f"{error.message}; everything is resolved anew")
        new = resolved(
            recipe, cache=project.cache_directory(here), note=_note, old=old, update=options.update
        )
        if new == old:
            print(f"{file} is up to date")
            continue
        project.write_lock(path, new)
        lines = locks.changes(old, new)
        print("\n".join(lines or ["no package changes"]))
        # Counted as the lines above: what is in two parts of the lock is there twice.
        print(f"{file}: {sum(len(pins) for _, pins in new.parts())} packages, {len(lines)} changes")
    return 0


def _vendor(options: argparse.Namespace) -> int:
    from umlbuild import finding, project
    from umlbuild.vendor import vendor

    here = Path.cwd()
    path = finding.find_recipe(options.recipe, here)
    where = vendor(path, options.directory.absolute(), cache=project.cache_directory(here), note=_note)
    recipe = where.relative_to(options.directory.absolute())
    print(shlex.join(["cd", str(options.directory)]), "&&", shlex.join(["umlbuild", "build", str(recipe)]),
          "--locked --offline")  # fmt: skip
    return 0


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
