"""What was asked for on the command line: recipes, verbs, whether tasks will run, and where outputs go.

Source: doit 0.37, doit_cmd.py (`name=value` words become variables, the last one of a name wins without
a word; get_var is None in a spawned child and outside of doit) and loader.py (get_module changes the
directory to the dodo.py's and keeps the one it was called from in `initial_workdir`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import doit

from umlbuild.errors import UserError
from umlbuild.tasks import options

VERBS = ("build", "kernel", "rootfs", "image", "release")
LOOKING = frozenset(
    {"list", "clean", "info", "help", "forget", "ignore", "reset-dep", "dumpdb", "strace", "tabcompletion"}
)
"""doit's commands that run no task."""
OTHERS = ("check", "step")
"""Our tasks that are no verbs; `check` has words of its own."""


@dataclass(frozen=True)
class Request:
    """One command line, as far as it concerns us."""

    recipes: str
    """The value of `recipe=`: one or several recipes, "" if it was not given."""
    started: Path
    """The directory where doit was called; recipes are looked for there first."""
    project: Path
    """Where `cache/` and `dist/` are."""
    running: bool
    """Whether tasks will run: only then may the lock be resolved, which needs the network."""
    verbs: tuple[str, ...] = ("build",)
    """Which parts are asked for."""
    command: str = "doit"
    """What the user called, to say how to repeat it."""
    locked: bool = False
    """Whether the lock must be there and answer the recipe."""
    offline: bool = False
    """Whether no network may be used."""
    version: str = ""
    """The value of `version=`, of a release."""
    key: str = ""
    """The value of `key=`: the file that signs a release."""
    alone: bool = False
    """Whether no tasks of others stand on ours."""
    force: bool = False
    """Whether `force=1` is given: a release may replace another of its version."""

    @property
    def cache(self) -> Path:
        """The store's directory."""
        return Path(os.environ.get("UMLBUILD_CACHE") or self.project / "cache")

    @property
    def key_file(self) -> Path | None:
        """The file of `key=`; a "~" of nobody stays as it is, and is no file."""
        if not self.key:
            return None
        with contextlib.suppress(RuntimeError):
            return self.started / Path(self.key).expanduser()
        return self.started / self.key

    def shown(self, path: Path) -> str:
        """A path as the caller would type it: relative where it is below, absolute elsewhere."""
        return str(path.relative_to(self.started) if path.is_relative_to(self.started) else path)

    def repeat(self, verb: str) -> str:
        """The command line that does `verb` again."""
        words = [self.command, verb, f"recipe={self.recipes}"]
        if verb == "release":
            given = {"version": self.version, "key": self.key, "force": "1" if self.force else ""}
            words += [f"{name}={value}" for name, value in given.items() if value]
        return shlex.join([*words, *["--locked"] * self.locked, *["--offline"] * self.offline])


class _CommandLine:
    given: tuple[str, ...] | None = None
    alone = False


def program() -> str:
    """What the user called, to say how to repeat it."""
    given = (_CommandLine.given or sys.argv)[0]
    return os.environ.get("UMLBUILD_COMMAND") or Path(given).name or "doit"


def verb_of(words: Sequence[str]) -> str | None:
    """The first verb on a command line, as it is spelled there (`build`, `build:hello`)."""
    if words and words[0] in OTHERS:
        return None
    return next((word for word in words if word.partition(":")[0] in VERBS), None)


def be_alone() -> None:
    """Say for the rest of this process that no tasks of others stand on ours."""
    _CommandLine.alone = True


@contextlib.contextmanager
def given(program: str, words: Sequence[str]) -> Iterator[None]:
    """Within: the command line is this one and not the process's own."""
    _CommandLine.given = (program, *words)
    try:
        yield
    finally:
        _CommandLine.given = None
        _CommandLine.alone = False


def words() -> list[str]:
    """The command line without the program."""
    return list((_CommandLine.given or tuple(sys.argv))[1:])


def read() -> Request:
    """The request of this process.

    Raises: UserError when `recipe=` is given twice, or a switch (`locked`, `offline`, `force`) is neither 0 nor 1.
    """
    recipes = [word for word in words() if word.startswith("recipe=")]
    if len(recipes) > 1:
        both = ",".join(word.partition("=")[2] for word in recipes)
        raise UserError("recipe= is given twice, and doit would keep only the last", f"recipe={both}")
    names = [word for word in words() if word and not word.startswith("-") and "=" not in word]
    here = Path.cwd()
    started = Path(doit.get_initial_workdir() or here)
    return Request(
        recipes=doit.get_var("recipe") or "",
        started=started,
        # A dodo.py elsewhere (DOIT_FILE, -f) lends its tasks; what is made stays with the caller.
        project=here if started.is_relative_to(here) else started,
        running=not (names and names[0] in LOOKING),
        verbs=tuple(verb for verb in VERBS if verb in names) or ("build",),
        command=program(),
        locked=options.switch(words(), "locked"),
        offline=options.switch(words(), "offline"),
        alone=_CommandLine.alone,
        version=str(doit.get_var("version") or ""),
        key=str(doit.get_var("key") or ""),
        force=options.switch(words(), "force"),
    )
