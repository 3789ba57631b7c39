"""The user's files: what a recipe names, read relative to it, and known to steps by digest.

Collects what could not be read, so that a recipe's missing files are told all at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from umlbuild import digest
from umlbuild.digest import Sha256

MISSING = Sha256("0" * 64)
"""Stands for a file that could not be read; the plan is not used then."""


class Files:
    """The files below and around one recipe."""

    def __init__(self, base: Path, file: str) -> None:
        self.base = base
        self.file = file
        self.problems: list[str] = []
        """`file: key.path: what is wrong`, one for each file that could not be read."""
        self.paths: dict[str, Path] = {}
        """Digest → path, of everything that was asked for."""
        self.names: set[str] = set()
        """Every name that was asked for, as the recipe has it."""

    def digest(self, name: str, at: str) -> Sha256:
        """The digest of a file; `at` is the key path that names it."""
        return self._known(name, at, tree=False)

    def tree(self, name: str, at: str) -> Sha256:
        """The digest of a directory."""
        return self._known(name, at, tree=True)

    def text(self, name: str, at: str) -> str:
        """The text of a file; "" if it could not be read."""
        path = self.base / name
        self.names.add(name)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._problem(at, name, error)
            return ""

    def secret(self, variable: str, at: str) -> str:
        """The value of an environment variable; "" and a problem if it is not set."""
        value = os.environ.get(variable, "")
        if not value:
            self.problems.append(f"{self.file}: {at}: the environment variable {variable} is not set")
        return value

    def _known(self, name: str, at: str, *, tree: bool) -> Sha256:
        path = self.base / name
        self.names.add(name)
        try:
            found = digest.of_tree(path.resolve(strict=True)) if tree else digest.of_file(path)
        except OSError as error:
            self._problem(at, name, error)
            return MISSING
        self.paths[found] = path.absolute()
        return found

    def _problem(self, at: str, name: str, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        self.problems.append(f"{self.file}: {at}: {name}: {reason}")
