"""Identities of host programs that shape bytes: the line that names their version, not their path.

Asking a compiler costs milliseconds each; the answers are kept in the cache and asked again when the
program's file is another one (size or mtime).
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from umlbuild.host import process


class Identities:
    """Versions of programs, remembered in `<cache>/tools.json`."""

    def __init__(self, cache: Path) -> None:
        self._file = cache / "tools.json"
        self._known: dict[str, dict[str, str]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._file.read_bytes())
            if isinstance(known, dict):
                self._known = known

    def of(self, program: str) -> str:
        """E.g. "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"; "gcc: none" if there is no such program."""
        path = process.find(program)
        if path is None:
            return f"{program}: none"
        info = Path(path).resolve().stat()
        stamp = f"{info.st_size}:{info.st_mtime_ns}"
        entry = self._known.get(program)
        if not isinstance(entry, dict) or entry.get("stamp") != stamp:
            lines = process.output([path, "--version"]).splitlines()
            entry = {"stamp": stamp, "version": lines[0].strip() if lines else program}
            self._known[program] = entry
            self._save()
        return entry["version"]

    def _save(self) -> None:
        # Losing it costs only time, so a cache that cannot be written is no error.
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            part.write_text(json.dumps(self._known, sort_keys=True))
            part.rename(self._file)
