"""What every remote can do. Names are relative paths of letters, digits, `_`, `-`, `.` and `/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Self


class Remote(ABC):
    """A place for blobs by name."""

    def __init__(self, address: str) -> None:
        self.address = address
        """As the user wrote it, for messages."""

    @classmethod
    @abstractmethod
    def at(cls, address: str, environ: Mapping[str, str]) -> Self | None:
        """The remote at an address; None if that is of another kind. Raises: HostError."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A small blob; None if there is none. Raises: FetchError (down, refused), OSError."""

    @abstractmethod
    def load(self, name: str, dest: Path, sha256: str, size: int) -> None:
        """Fetch a blob into a file, checked. Raises: FetchError (gone, other bytes), OSError."""

    @abstractmethod
    def save(self, name: str, source: Path) -> None:
        """Put a file there, whole or not at all. Raises: FetchError, OSError."""
