"""What planning asked of this machine, and the answers: the digests of files, the versions of programs.

A plan is a function of umlbuild's code and these answers. So while all of them are the same, so is the plan, and
whoever asks again need not plan again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from umlbuild import digest
from umlbuild.errors import UserError
from umlbuild.host.identity import Identities

Kind = Literal["file", "tree", "program"]
"""Of what the answer is: the digest of a file or of a directory, the identity of a program or library."""

Row = tuple[str, str, str]
"""Kind, name (of a file its absolute path), answer."""


class Answers:
    """The answers that one plan is made of."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Kind, str], str] = {}
        self.complete = True
        """Whether the plan follows from the answers alone: not if something was asked that is not kept (a secret), or
        that changed between two questions."""

    def rows(self) -> list[Row]:
        """All of them, as they were asked for: the recipe first."""
        return [(kind, name, answer) for (kind, name), answer in self._rows.items()]

    def put(self, kind: Kind, name: str, answer: str) -> str:
        """Keep an answer; returns it."""
        if self._rows.setdefault((kind, name), answer) != answer:
            self.complete = False
        return answer

    def read(self, path: Path) -> str:
        """The text of a UTF-8 file, with its lines ended by LF. Raises: OSError, UnicodeDecodeError."""
        content = path.read_bytes()
        self.put("file", os.fspath(path.absolute()), digest.of_bytes(content))
        return content.decode().replace("\r\n", "\n").replace("\r", "\n")

    def wrote(self, path: Path, text: str) -> None:
        """A file was written by the planning itself, and counts as it is now."""
        self._rows["file", os.fspath(path.absolute())] = digest.of_bytes(text.encode())


def are_same(rows: Iterable[Row], cache: Path) -> bool:
    """Whether this machine still answers so."""
    identities = Identities(cache)
    try:
        return all(_answer(kind, name, identities) == answer for kind, name, answer in rows)
    except (OSError, ValueError, UserError):  # a file that went, a name that no file can have
        return False


def _answer(kind: str, name: str, identities: Identities) -> str | None:
    """Raises: OSError."""
    match kind:
        case "file":
            return digest.of_file(Path(name))
        case "tree":
            return digest.of_tree(Path(name).resolve(strict=True))
        case "program":
            return identities.of(name)
    return None
