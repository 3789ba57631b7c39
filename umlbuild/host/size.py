"""Sizes as people write and read them: "20G" (powers of 1024), "1.2 GB" (powers of 1000)."""

from __future__ import annotations

import re

from umlbuild.errors import UserError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse(words: str, what: str) -> int:
    """Bytes of e.g. "20G" or "500M"; `what` names the setting. Raises: UserError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(?:i?B)?", words.strip(), re.IGNORECASE)
    if match is None:
        raise UserError(f"{what}: {words!r} is no size", "write it like 20G or 500M")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def shown(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
