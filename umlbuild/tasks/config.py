"""What doit is told about how to run our tasks."""

from __future__ import annotations

import sys

import doit

from umlbuild.errors import UserError
from umlbuild.tasks import options, request, spelling
from umlbuild.tasks.reporter import Reporter

ALONE: dict[str, object] = {"backend": "sqlite3", "dep_file": ":memory:"}
"""For a dodo.py without tasks of others: no database at all. The store decides what is fresh, so there is
nothing to remember, and nothing that a kill or a second build could damage."""


def alone() -> dict[str, object]:
    """DOIT_CONFIG for a dodo.py with our tasks, and without others that stand on ours.

    A command line that is misspelled ends the process here: doit would take it, or tell it as an error of code 3.
    """
    words, program = request.words(), request.program()
    verb = request.verb_of(words)
    if verb and {"-h", "--help"} & set(words):
        sys.stdout.write(f"{options.usage(program, verb)}\n")
        raise SystemExit(0)
    try:
        spelling.check(words, program)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None
    request.be_alone()
    return {**config(), **ALONE}


def config() -> dict[str, object]:
    """DOIT_CONFIG for a dodo.py that has our tasks.

    Threads, since steps wait for programs, and since forked workers would outlive a killed doit
    (measured with doit 0.37: SIGTERM left three). Two: kernel and root file system side by side.
    """
    return {
        "default_tasks": ["build"],
        "reporter": Reporter,
        "num_process": 2,
        "par_type": "thread",
        # `doit list recipe=x` shows the steps, in the order in which they are made.
        "subtasks": bool(doit.get_var("recipe")),
        "quiet": False,
        "sort": "definition",
        **options.after_verb(request.words(), request.VERBS),
    }
