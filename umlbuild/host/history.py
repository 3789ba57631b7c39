"""What the cache remembers besides its entries: what keys were made of, what steps took, the last plans.

    keys/<stage>/<key>.json    the canonical JSON that the key is the digest of (passwords' hashes left out)
    times/<stage>.jsonl        one line for each time a step was made
    plans/<recipe>-<id>.json   the plan of a recipe that was built last, by the recipe's path

It explains and estimates, and decides nothing: where it cannot be read or written, nothing is known.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from umlbuild import digest
from umlbuild.host import records

_TIMES_LIMIT = 1 << 18
"""Bytes of one stage's times; then the older half is forgotten."""
_LINE_LIMIT = 4096


class History:
    """The memory of one cache."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def identity(self, stage: str, key: str) -> dict[str, object] | None:
        """What a key was made of; None if that is not known."""
        return records.read(self._key(stage, key))

    def keep_identity(self, stage: str, key: str, identity: object) -> None:
        """Remember what a key was made of."""
        if not self._key(stage, key).exists():
            records.write(self._key(stage, key), identity)

    def took(self, stage: str, key: str, label: str, seconds: float) -> None:
        """Remember how long a step took."""
        path = self.root / "times" / f"{stage}.jsonl"
        row = {"key": key[:32], "label": label, "seconds": round(seconds, 2), "at": int(time.time())}
        line = digest.canonical_json(row) + b"\n"
        if len(line) > _LINE_LIMIT:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # One write of a short line at the end of a file: lines of several builds do not mix.
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(fd, line)
                full = os.fstat(fd).st_size > _TIMES_LIMIT
            finally:
                os.close(fd)
            if full:
                lines = path.read_bytes().splitlines(keepends=True)
                records.replace(path, b"".join(lines[len(lines) // 2 :]))

    def seconds(self, stage: str, key: str, label: str) -> float | None:
        """How long a step will take: as this key took, else as its like (by label), else as the stage usually does."""
        rows: list[tuple[str, str, float]] = []
        with contextlib.suppress(OSError):
            for line in (self.root / "times" / f"{stage}.jsonl").read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    rows.append((str(row["key"]), str(row["label"]), float(row["seconds"])))
        for at, wanted in ((0, key[:32]), (1, label)):
            if found := [row[2] for row in rows if row[at] == wanted]:
                return found[-1]
        return statistics.median(row[2] for row in rows[-20:]) if rows else None

    def last(self, recipe: Path) -> dict[str, object] | None:
        """The record of the plan of a recipe that was built last; None if none is known."""
        return records.read(self._plan(recipe))

    def keep_plan(self, recipe: Path, record: Mapping[str, object]) -> None:
        """Remember a plan as the one of its recipe that was built last."""
        records.write(self._plan(recipe), record)

    def records(self) -> list[dict[str, object]]:
        """All plans that are remembered."""
        found = (records.read(path) for path in sorted((self.root / "plans").glob("*.json")))
        return [record for record in found if record is not None]

    def _key(self, stage: str, key: str) -> Path:
        return self.root / "keys" / stage / f"{key}.json"

    def _plan(self, recipe: Path) -> Path:
        place = digest.of_bytes(os.fsencode(recipe.resolve()))
        return self.root / "plans" / f"{recipe.stem[:80]}-{place[:16]}.json"
