"""`umlbuild attack BUNDLE`: try to break out of a bundle's machine, and say what held."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(verbs: Verbs) -> None:
    """Mount the verb."""
    attack = verbs.add_parser(
        "attack", help="try to break out of a bundle's machine",
        description="Attempts by guest root and by code in UML's own process, against a private copy of the bundle. "
        "Exit code 1 if one got through.",
    )  # fmt: skip
    attack.add_argument("bundle", type=Path, help="a bundle's directory, e.g. dist/hello")
    attack.add_argument("--json", action="store_true", help="rows as JSON, for programs")
    attack.add_argument("--allow-root", action="store_true", help="let it run as root when you are root")
    attack.set_defaults(verb=_attack)


def _attack(options: argparse.Namespace) -> int:
    from umlbuild.attack.suite import Suite

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows = []
    with Suite(options.bundle, allow_root=options.allow_root) as suite:
        for row in suite.rows():
            rows.append(row)
            if not options.json:
                print(f"{row.verdict:9}  {row.name:18}  {row.tries}{f': {row.seen}' if row.seen else ''}", flush=True)
    if options.json:
        print(json.dumps([row.as_dict() for row in rows], indent=1))
    else:
        counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ("held", "open", "not tried")}
        print(f"{len(rows)} attempts: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return int(any(row.verdict == "open" for row in rows))
