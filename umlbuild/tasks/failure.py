"""A failed step, worded for the person in front of it and carried to the exit code."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from doit.exceptions import TaskError, TaskFailed

from umlbuild.errors import ToolFailed, UserError
from umlbuild.host import diskfull, process

BUG = 3


class Failed(TaskFailed):  # type: ignore[misc]  # doit has no types
    """A step that failed (doit's exit status 1)."""

    exit_code = 1


class Broken(TaskError):  # type: ignore[misc]
    """A step that could not be tried, or a bug (doit's exit status 2)."""

    exit_code = 2


def failure_of(error: Exception, what: str, log: Path | None, again: str) -> Failed | Broken:
    """What doit is handed for an error in the step or verb `what`."""
    error = diskfull.worded(error, log.parent.parent if log else Path.cwd())
    if not isinstance(error, UserError):
        broken = Broken(_bug_text(error, what, log, again))
        broken.exit_code = BUG
        return broken
    text = _text(error, what, log, again)
    return Failed(text) if error.exit_code == 1 else Broken(text)


def _text(error: UserError, what: str, log: Path | None, again: str) -> str:
    lines = [f"FAILED: {what}"]
    lines += [f"  {line}" for line in str(error).splitlines()]
    if log is not None and log.exists() and not (isinstance(error, ToolFailed) and error.log is not None):
        lines += [f"    | {line}" for line in process.tail_of(log)]
        lines.append(f"    log: {log}")
    lines.append(f"  again: {again}")
    return "\n".join(lines)


def _bug_text(error: Exception, what: str, log: Path | None, again: str) -> str:
    trace = "".join(traceback.format_exception(error))
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        where = f" ({os.path.basename(frame.filename)}:{frame.lineno})"
    line = f"FAILED: {what}: a bug in umlbuild: {type(error).__name__}: {error}{where}"
    if log is None:
        return f"{line}\n{trace}"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(trace)
    except OSError:
        return f"{line}\n{trace}"
    return f"{line}; the traceback is in {log}\n  again: {again}"
