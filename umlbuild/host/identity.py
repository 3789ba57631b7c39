"""Identities of host programs and libraries that shape bytes: what names their version, not their path.

A program's is the line in which it tells its version, a shared library's (it cannot be asked) its digest.
Asking a compiler costs milliseconds each; the answers are kept in the cache and asked again when the
file is another one (size or mtime).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from umlbuild import digest
from umlbuild.host import process, records


class Identities:
    """Versions of programs, remembered in `<cache>/tools.json`."""

    def __init__(self, cache: Path) -> None:
        self._file = cache / "tools.json"
        self._known: dict[str, Any] = records.read(self._file) or {}

    def of(self, program: str) -> str:
        """E.g. "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"; "gcc: none" if there is no such program.

        A name with ".so." is that of a library which the host's compiler links with.
        """
        library = ".so." in program
        path = self._library(program) if library else process.find(program)
        if path is None:
            return f"{program}: none"
        info = Path(path).resolve().stat()
        stamp = f"{info.st_size}:{info.st_mtime_ns}"
        entry = self._known.get(program)
        if not (isinstance(entry, dict) and entry.get("stamp") == stamp and "version" in entry):
            entry = {"stamp": stamp, "version": _digest(program, path) if library else _version(program, path)}
            if library:
                entry["path"] = path
            self._known[program] = entry
            records.write(self._file, self._known)  # losing it costs only time
        return str(entry["version"])

    def _library(self, name: str) -> str | None:
        """Where a library is: as remembered, while it is there; else as the compiler says."""
        entry = self._known.get(name)
        remembered = str(entry.get("path") or "") if isinstance(entry, dict) else ""
        if remembered and Path(remembered).is_file():
            return remembered
        found = compilers_library(name)
        return os.fspath(found) if found else None


def compilers_library(name: str) -> Path | None:
    """Where the host's compiler finds a library; None if it does not (or there is no compiler)."""
    if process.find("gcc") is None:
        return None
    # Source: gcc(1), -print-file-name: an unknown name is printed as it is.
    path = Path(process.output(["gcc", f"-print-file-name={name}"]).strip())
    return path.resolve() if path.is_absolute() else None


def _version(program: str, path: str) -> str:
    lines = process.output([path, "--version"]).splitlines()
    return lines[0].strip() if lines else program


def _digest(name: str, path: str) -> str:
    return f"{name} sha256:{digest.of_file(Path(path))}"
