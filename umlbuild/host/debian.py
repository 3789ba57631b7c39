"""Debian's text formats: control paragraphs, the dpkg status file, os-release. Pure but for the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file; of folded fields only the first line. Source: deb822(5)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    if fields:
        yield fields


def installed(status: str) -> dict[str, str]:
    """Package name → version of everything that is installed and configured. Source: dpkg-query(1)."""
    rows = (row for row in stanzas(status) if row.get("Status") == "install ok installed")
    return {row["Package"]: row["Version"] for row in rows}


def release_of_host(os_release: Path = Path("/etc/os-release")) -> str:
    """The code name of the running Debian, "" if it has none. Source: os-release(5)."""
    if not os_release.exists():
        return ""
    for line in os_release.read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip("\"'")
    return ""
