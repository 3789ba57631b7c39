"""`doit check`: all tests of this project by pytest, its output live and its arguments passed on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from umlbuild.errors import StepFailed
from umlbuild.host import process
from umlbuild.tasks import signals
from umlbuild.tasks.action import Action
from umlbuild.tasks.reporter import OURS

_TIMEOUT_S = 4 * 3600.0
_LANES = ["-n", "2"]
"""Of a whole run; what somebody picks out runs in one process, in order, as pytest does it."""


class Check(Action):
    """Runs pytest on our own terminal; doit's capture would keep its output to the end."""

    what = "the tests"
    again = "doit check"

    def __init__(self, project: Path) -> None:
        super().__init__()
        self.project = project

    def __str__(self) -> str:
        return "pytest"

    def perform(self) -> None:
        """Run it. Raises: StepFailed when a test failed."""
        from umlbuild.host import needs  # brings pydantic, which `doit list` can do without

        missing = needs.install_what_tests_use(print_line)
        if missing:
            print_line(f"not installed, so their tests are skipped: {', '.join(missing)}")
        options = self.task.options
        argv = [sys.executable, "-m", "pytest"]
        for name in ("k", "m"):
            argv += [f"-{name}", options[name]] if options[name] else []
        argv += [f"-{name}" for name in "xqv" if options[name]]
        words = self.task.pos_arg_val or []
        if not (options["k"] or options["m"]) and all(word.startswith("-") for word in words):
            argv += _LANES
        with signals.step():
            status = process.foreground(
                [*argv, *words], timeout_s=_TIMEOUT_S, cwd=self.project
            )
        if status:
            raise StepFailed(f"pytest: exit status {status}")


def task_of(project: Path) -> dict[str, Any]:
    """The task for the dodo.py of the project in a directory."""
    signals.install()
    return {
        "actions": [Check(project)],
        "doc": "run all tests: check [-k WORDS] [-m MARK] [-xqv] [PATH…] [-- any arguments of pytest]",
        "params": [
            *({"name": name, "short": name, "long": "", "default": "", "help": "pytest's"} for name in "km"),
            *(
                {"name": name, "short": name, "long": "", "type": bool, "default": False, "help": "pytest's"}
                for name in "xqv"
            ),
        ],
        "pos_arg": "words",
        "meta": OURS,
    }


def print_line(text: str) -> None:
    """A line before pytest's own."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
