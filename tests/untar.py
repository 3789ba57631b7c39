"""Unpacking an archive of our own making, on every Python: bookworm's 3.11.2 knows no `filter` yet."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(tar: tarfile.TarFile, into: Path) -> None:
    """All members, with their modes, below `into`."""
    if hasattr(tarfile, "tar_filter"):
        tar.extractall(into, filter="tar")
    else:
        tar.extractall(into)
