"""The user's files: what a recipe names, read relative to it, and known to steps by digest.

Collects what could not be read, so that a recipe's missing files are told all at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from umlbuild import digest
from umlbuild.digest import Sha256
from umlbuild.host.answers import Answers
from umlbuild.specs.bundle import Source

KEPT_UP_TO = 16 << 20
"""Bytes; a larger file of the user's is not put into the bundle a second time."""

MISSING = Sha256("0" * 64)
"""Stands for a file that could not be read; the plan is not used then."""


class Files:
    """The files below and around one recipe."""

    def __init__(self, base: Path, file: str, answers: Answers | None = None) -> None:
        self.base = base
        self.file = file
        self.answers = answers or Answers()
        """What was asked, with what was found."""
        self.problems: list[str] = []
        """`file: key.path: what is wrong`, one for each file that could not be read."""
        self.paths: dict[str, Path] = {}
        """Digest → path, of everything that was asked for."""
        self._sources: dict[str, Source] = {}

    @property
    def sources(self) -> tuple[Source, ...]:
        """Everything that was asked for by its name, sorted."""
        return tuple(source for _, source in sorted(self._sources.items()))

    def path_of(self, name: str) -> Path:
        """Where the file is that the recipe calls so."""
        return self.base / name

    def digest(self, name: str, at: str) -> Sha256:
        """The digest of a file; `at` is the key path that names it."""
        return self._known(name, at, tree=False)

    def size(self, found: str) -> int:
        """Bytes of a file with this digest, that was asked for."""
        return self.paths[found].stat().st_size if found in self.paths else 0

    def tree(self, name: str, at: str) -> Sha256:
        """The digest of a directory."""
        return self._known(name, at, tree=True)

    def text(self, name: str, at: str, *, secret: bool = False) -> str:
        """The text of a file; "" if it could not be read. Of a secret one not even the digest is kept."""
        path = self.path_of(name)
        try:
            content = path.read_bytes()
            text = content.decode()
        except (OSError, UnicodeDecodeError) as error:
            self._problem(at, name, error)
            return ""
        if secret:
            self.answers.complete = False
            self._sources.setdefault(name, Source(name=name, at=at, kind="secret"))
        else:
            self._remember(digest.of_bytes(content), path, name, at)
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def secret(self, variable: str, at: str) -> str:
        """The value of an environment variable; "" and a problem if it is not set."""
        self.answers.complete = False
        value = os.environ.get(variable, "")
        if not value:
            self.problems.append(f"{self.file}: {at}: the environment variable {variable} is not set")
        return value

    def _known(self, name: str, at: str, *, tree: bool) -> Sha256:
        path = self.path_of(name)
        try:
            found = digest.of_tree(path.resolve(strict=True)) if tree else digest.of_file(path)
        except OSError as error:
            self._problem(at, name, error)
            return MISSING
        self._remember(found, path, name, at, tree=tree)
        return found

    def _remember(self, found: Sha256, path: Path, name: str, at: str, *, tree: bool = False) -> None:
        self.paths[found] = path.absolute()
        self.answers.put("tree" if tree else "file", os.fspath(path.absolute()), found)
        kind: Literal["tree", "kept", "large"] = "tree"
        if not tree:
            kind = "kept" if path.stat().st_size <= KEPT_UP_TO else "large"
        self._sources.setdefault(name, Source(name=name, at=at, kind=kind, sha256=found))

    def _problem(self, at: str, name: str, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        self.problems.append(f"{self.file}: {at}: {name}: {reason}")
