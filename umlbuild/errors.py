"""Every way in which umlbuild tells a person that something went wrong.

A sentence says what was being done and what went wrong; the hint says what to do next.
Broken invariants are `assert`, never one of these. Nobody calls `sys.exit` outside `cli.py`.

Exit codes: 0 ok · 1 a step failed · 2 recipe, lock, usage or host problem · 3 a bug in umlbuild ·
130/143 ended by SIGINT/SIGTERM.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


class UserError(Exception):
    """Something the user can mend: `message` says what, `hint` (may be empty) says how."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.hint}" if self.hint else self.message


class RecipeError(UserError):
    """All problems of one recipe at once, each `file: key.path: what is wrong`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class LockError(UserError):
    """A lock that cannot be read, or a reference that could not be resolved to a pin."""


class HostError(UserError):
    """The machine lacks something (a program, a permission, space); the hint is the one-line fix."""


class FetchError(UserError):
    """A download that failed, or whose bytes are not the promised ones; nothing was kept."""

    exit_code = 1


class StepFailed(UserError):
    """A build step failed for a reason that is known and worded."""

    exit_code = 1


class Cancelled(StepFailed):
    """The build was told to end (SIGINT or SIGTERM) while this was running."""


class ToolFailed(StepFailed):
    """A program failed: the command to repeat it, why it ended, the log and its last lines."""

    def __init__(self, argv: Sequence[str], cause: str, log: Path | None, tail: Sequence[str]) -> None:
        self.argv = tuple(argv)
        self.cause = cause
        self.log = log
        self.tail = tuple(tail)
        lines = [f"{argv[0]}: {cause}"]
        lines += [f"  | {line}" for line in tail]
        if log is not None:
            lines.append(f"  log: {log}")
        lines.append(f"  command: {shlex.join(argv)}")
        super().__init__("\n".join(lines))
