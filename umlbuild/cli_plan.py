"""`umlbuild plan` and `umlbuild why`: what a build would do, and the cause of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parsers(verbs: Verbs) -> None:
    """Add both verbs."""
    plan = verbs.add_parser("plan", help="what a build would do: steps, seconds (from earlier builds), bytes to fetch")
    plan.add_argument("recipe", help="a recipe's name or path")
    plan.add_argument("--json", action="store_true", help="for programs")
    plan.set_defaults(verb=_plan)
    why = verbs.add_parser("why", help="what would be made again, and which field, file, package or tool causes it")
    why.add_argument("recipe", help="a recipe's name or path")
    why.add_argument("step", nargs="?", default="", help="only this step: a stage, or the first digits of a key")
    why.set_defaults(verb=_why)


def _plan(options: argparse.Namespace) -> int:
    from umlbuild import finding, forecast, project

    here = Path.cwd()
    cache = project.cache_directory(here)
    for path in finding.find_recipes(options.recipe, here):
        plan = project.plan_recipe(path, resolve=False, note=lambda _text: None, cache=cache)
        found = forecast.forecast_of(plan.bundle, cache)
        print(json.dumps(forecast.data_of(found)) if options.json else forecast.text_of(found))
    return 0


def _why(options: argparse.Namespace) -> int:
    from umlbuild import finding, why

    for path in finding.find_recipes(options.recipe, Path.cwd()):
        print(why.text_of(path, Path.cwd(), options.step))
    return 0
