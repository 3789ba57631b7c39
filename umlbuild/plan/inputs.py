"""What a plan is given besides recipe and lock: the user's files by digest, the identities of programs.

Protocols only: the plan itself reads nothing, `umlbuild.project` brings the real ones from `host`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from umlbuild.digest import Sha256
from umlbuild.specs.bundle import Source

Identity = Callable[[str], str]
"""Program → the line that names its version."""


class Files(Protocol):
    """The files that a recipe names; what cannot be read becomes one of `problems`."""

    file: str
    """The recipe's name, for messages."""
    problems: list[str]

    @property
    def paths(self) -> Mapping[str, Path]:
        """Digest → path of everything asked for so far."""
        ...

    @property
    def sources(self) -> tuple[Source, ...]:
        """Everything asked for so far by its name, sorted."""
        ...

    def digest(self, name: str, at: str) -> Sha256:
        """The digest of a file; `at` is the key path that names it."""
        ...

    def size(self, found: str) -> int:
        """Bytes of a file with this digest, that was asked for."""
        ...

    def tree(self, name: str, at: str) -> Sha256:
        """The digest of a directory."""
        ...

    def text(self, name: str, at: str, *, secret: bool = False) -> str:
        """The text of a file; of a secret one nothing goes into the bundle."""
        ...

    def secret(self, variable: str, at: str) -> str:
        """The value of an environment variable."""
        ...
