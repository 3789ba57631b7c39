"""doit's reporter for us: progress by `progress`, failures as worded, the exit code they stand for.

Tasks of other people in the same dodo.py are reported as doit does it.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from doit.exceptions import UnmetDependency
from doit.reporter import ConsoleReporter

from umlbuild.tasks import progress, signals

OURS = {"umlbuild": True}
"""The `meta` of our tasks."""


class Reporter(ConsoleReporter):  # type: ignore[misc]  # doit has no types
    """One line per running step, one block per failure, one line per result."""

    desc = "umlbuild: one line per running step"

    def __init__(self, outstream: Any, options: Any) -> None:
        super().__init__(outstream, options)
        self._lines = progress.Lines(outstream, progress.is_live(outstream))
        self._code = 0
        self._foreign_failed = False
        progress.use(self._lines)

    def execute_task(self, task: Any) -> None:
        """A task starts; ours tell the board themselves."""
        if not _is_ours(task) and task.actions:
            self._lines.pause()
            super().execute_task(task)

    def add_success(self, task: Any) -> None:
        """A task has ended well."""
        if not _is_ours(task) and task.actions:
            self._lines.resume()

    def skip_uptodate(self, task: Any) -> None:
        """A task had nothing to do; of ours nothing is said."""
        if not _is_ours(task):
            super().skip_uptodate(task)

    def add_failure(self, task: Any, fail: Any) -> None:
        """A task has failed."""
        if not _is_ours(task):
            self._lines.resume()
            self._foreign_failed = True
            super().add_failure(task, fail)
            return
        if isinstance(fail, UnmetDependency):  # told by the failure that it follows from
            return
        self._code = max(self._code, getattr(fail, "exit_code", 2))
        if signals.received():
            return
        self._lines.say(fail.message)
        if others := self._lines.running():
            self._lines.say(f"still running: {', '.join(others)}; what gets done is kept (Ctrl-C ends it)")

    def complete_run(self) -> None:
        """The end: leave the terminal tidy and set the exit code, which doit's own cannot express."""
        self._lines.close()
        number = signals.received()
        if number:
            sys.stderr.write(f"ended by {signal.Signals(number).name}; run again to go on\n")
            raise SystemExit(128 + number)
        super().complete_run()
        if self._code and not self._foreign_failed and not self.runtime_errors:
            raise SystemExit(self._code)


def _is_ours(task: Any) -> bool:
    return bool(task.meta) and task.meta.get("umlbuild") is True
