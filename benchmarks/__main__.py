"""Measures umlbuild and its peers in one run, prints a table and writes JSON.

    .venv/bin/python -m benchmarks --quick            # a minute
    .venv/bin/python -m benchmarks --json out.json    # about a quarter of an hour
    .venv/bin/python -m benchmarks --slow             # compiles kernels, too: an hour

Everything is made in one directory below --work with a cache of its own, which is removed at the end. Downloads
and compiled kernels are taken over from the cache that UMLBUILD_CACHE names (or the checkout's `cache/`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from benchmarks import table
from benchmarks.builds import Builds
from benchmarks.machines import Machines
from benchmarks.measure import Measure, skipped
from benchmarks.programs import Failed
from benchmarks.world import PROJECT, World, remove

FORMAT = 1
"""Of the JSON."""


class Suite:
    """All measures by name, in order; what several need is made once."""

    def __init__(self, world: World, rounds: int, options: argparse.Namespace) -> None:
        self._world = world
        self._rounds = rounds
        self._options = options

    @cached_property
    def _builds(self) -> Builds:
        options = self._options
        return Builds(self._world, self._rounds, options.mkosi_mirror, options.mkosi_root)

    @cached_property
    def _machines(self) -> Machines:
        return Machines(self._world, self._rounds, compiles=self._options.slow)

    def measures(self) -> dict[str, Callable[[], Iterator[Measure]]]:
        """Name → what measures it."""
        return {
            "noop": lambda: iter([self._builds.noop()]),
            "hostname": lambda: iter([self._builds.hostname()]),
            "package": lambda: iter([self._builds.package()]),
            "root": lambda: iter([self._builds.root()]),
            "cold": lambda: iter([self._builds.cold()]),
            "many": lambda: iter([self._builds.many()]),
            "prebuilt": lambda: self._machines.prebuilt(),  # noqa: PLW0108  # made when it is called
            "boot": lambda: self._machines.source(),  # noqa: PLW0108
            "kernel": lambda: self._builds.kernels(),  # noqa: PLW0108
            "router": lambda: iter([self._builds.whole()]),
        }

    SLOW = ("kernel", "router")
    QUICK = ("noop", "hostname", "prebuilt")


def main() -> int:
    """Measure what is asked for. Returns 0, or 1 when one of our own sides failed."""
    options = _options()
    seed = Path(os.environ.get("UMLBUILD_CACHE") or PROJECT / "cache")
    root = Path(tempfile.mkdtemp(prefix="umlbench-", dir=options.work))
    root.chmod(0o755)  # a machine of root's runs as nobody, who reads the bundle
    done: list[Measure] = []
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        world = World(root)
        world.seed(seed)
        suite = Suite(world, 1 if options.quick else options.rounds, options)
        known = suite.measures()
        if unknown := [name for name in options.only if name not in known]:
            print(f"--only {','.join(unknown)}: no such measure; there are: {', '.join(known)}", file=sys.stderr)
            return 2
        for name in options.only or _usual(suite, options):
            print(f"{name} …", file=sys.stderr, flush=True)
            try:
                done += known[name]()
            except Failed as error:
                done.append(skipped(name, "", str(error)))
    except KeyboardInterrupt:
        done.append(skipped("the rest", "", "interrupted"))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            remove(root)
        except Failed as error:
            done.append(skipped("removing the run's directory", "", str(error)))
    data = {"format": FORMAT, "machine": table.machine(), "measures": [measure.as_data() for measure in done]}
    text = json.dumps(data, indent=1)
    if options.json == Path("-"):
        print(text)
    else:
        if options.json:
            options.json.write_text(f"{text}\n")
        print(table.text_of(done), end="")
    return int(any(measure.skipped or _broken(measure) for measure in done))


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _broken(measure: Measure) -> bool:
    return any(row.name == "umlbuild" and row.failure for row in measure.rows)


def _usual(suite: Suite, options: argparse.Namespace) -> list[str]:
    names = list(suite.measures())
    if options.quick:
        return [name for name in names if name in Suite.QUICK]
    return names if options.slow else [name for name in names if name not in Suite.SLOW]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="NAME,…",
                        help="noop, hostname, package, root, cold, many, prebuilt, boot, kernel, router")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one round of what takes seconds")
    parser.add_argument("--slow", action="store_true", help="compile kernels, too")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON there; - prints it instead of the table")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the run's directory is made")
    parser.add_argument("--mkosi-mirror", metavar="URL", help="let mkosi take part, from this mirror")
    parser.add_argument("--mkosi-root", type=Path, metavar="DIR", help="a Debian in a directory, whose mkosi it is")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
