"""Small files that are written whole or not at all; records of JSON in the cache, which are lost without harm."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from umlbuild import digest


def read(path: Path) -> dict[str, object] | None:
    """A record; None where there is none, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        data = json.loads(path.read_bytes())
        if isinstance(data, dict):
            return data
    return None


def write(path: Path, data: object) -> None:
    """Keep a record; where the cache cannot be written, or a name in it is no UTF-8, nothing."""
    with contextlib.suppress(OSError, UnicodeEncodeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, digest.canonical_json(data))


def replace(path: Path, data: bytes) -> None:
    """Put a file in another's place. Raises: OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
