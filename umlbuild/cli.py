"""`umlbuild VERB`: what is not a build task. The only place that ends the process.

Exit codes: 0 ok · 1 a step failed · 2 recipe, lock, usage or host problem · 3 a bug · 130/143 ended by a
signal; `run` and `exec` give the machine's own (see their --help).
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from umlbuild import __version__
from umlbuild.errors import UserError
from umlbuild.host import process

_ENDS = (signal.SIGTERM, signal.SIGHUP)

TASKS = {
    "build": "build bundles into dist/, as `doit build recipe=…` in any directory: umlbuild build RECIPE.toml",
    "release": "pack bundles into dist/NAME-VERSION",
    "kernel": "make only the kernel",
    "rootfs": "make only the root file system",
    "image": "make only the disk image",
    "list": "the tasks and steps of recipes",
    "clean": "remove what was built of recipes",
}
"""Verbs that are doit's."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and end the process with its exit code."""
    for number in _ENDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _end)
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def _end(number: int, _frame: object) -> None:
    """What a verb has begun is removed on the way out, as with ^C: once, though a terminal that goes says so twice."""
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)
    process.cancel()  # threads that fetch look at it
    sys.exit(128 + number)


def run(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    if argv[:1] and argv[0] in TASKS:
        from umlbuild.tasks import main as run_tasks

        return run_tasks(argv)
    try:
        options = _parser().parse_args(argv)
        return int(options.verb(options))
    except UserError as error:
        print(f"umlbuild: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0  # the reader has seen enough
    except Exception:
        traceback.print_exc()
        print("umlbuild: this is a bug in umlbuild; please report the lines above", file=sys.stderr)
        return 3


def _parser() -> argparse.ArgumentParser:
    from umlbuild import (
        cli_attack,
        cli_filter,
        cli_hub,
        cli_lock,
        cli_machine,
        cli_plan,
        cli_store,
        cli_verify,
    )  # fmt: skip

    parser = argparse.ArgumentParser(prog="umlbuild", description=__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=f"umlbuild {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    show = verbs.add_parser("show", help="the effective recipe, the plan and the kernel's symbols")
    show.add_argument("recipe", help="a recipe's name or path")
    show.set_defaults(verb=_show)
    for name, text in TASKS.items():
        verbs.add_parser(name, help=text)
    cli_plan.add_parsers(verbs)
    cli_store.add_parsers(verbs)
    cli_machine.add_parsers(verbs)
    cli_attack.add_parser(verbs)
    cli_filter.add_parser(verbs)
    cli_hub.add_parser(verbs)
    cli_lock.add_parsers(verbs)
    cli_verify.add_parser(verbs)
    return parser


def _show(options: argparse.Namespace) -> int:
    from umlbuild import show

    for path in show.found(options.recipe, Path.cwd()):
        print(show.text_of(path, Path.cwd()))
    return 0


if __name__ == "__main__":
    main()
