"""Names that nobody knows: which ones were perhaps meant. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """Words to add to "there is no such …": the most alike names, "" if none is."""
    alike = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(alike)}?" if alike else ""
