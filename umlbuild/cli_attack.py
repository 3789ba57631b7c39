"""`umlbuild attack BUNDLE`: try to break out of a bundle's machine, and say what held."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umlbuild.attack.suite import Row

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(verbs: Verbs) -> None:
    """Mount the verb."""
    attack = verbs.add_parser(
        "attack", help="try to break out of a bundle's machine",
        description="Attempts by guest root and by code in UML's own process, against a private copy of the bundle. "
        "Exit code 1 if one got through; what is only weak (no escape, and documented) counts with --strict.",
    )  # fmt: skip
    attack.add_argument("bundle", type=Path, help="a bundle's directory, e.g. dist/hello")
    attack.add_argument("--json", action="store_true", help="rows as JSON, for programs")
    attack.add_argument("--strict", action="store_true", help="exit code 1 for what is weak, too")
    attack.add_argument("--allow-root", action="store_true", help="let it run as root when you are root")
    attack.set_defaults(verb=_attack)


def _attack(options: argparse.Namespace) -> int:
    from umlbuild.attack import lanes

    found = []
    with contextlib.closing(lanes.rows(options.bundle, allow_root=options.allow_root)) as rows:
        for row in rows:
            found.append(row)
            if not options.json:
                print(f"{row.verdict:9}  {row.name:18}  {row.tries}{f': {row.seen}' if row.seen else ''}", flush=True)
    if options.json:
        print(json.dumps([row.as_dict() for row in lanes.in_order(found)], indent=1))
    else:
        verdicts = ("held", "open", "weak", "not tried")
        counts = {verdict: sum(row.verdict == verdict for row in found) for verdict in verdicts}
        print(f"{len(found)} attempts: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return status_of(found, strict=options.strict)


def status_of(rows: Iterable[Row], *, strict: bool) -> int:
    """The exit code: 1 if one got out; if `strict`, also if one found a known weakness."""
    return int(any(row.verdict == "open" or (strict and row.verdict == "weak") for row in rows))
