"""Fixtures of the image tests: real tools, fetched once into cache/tests/image."""

from __future__ import annotations

from pathlib import Path

import imagekit
import pytest


@pytest.fixture(scope="session")
def checkers() -> Path:
    """A tools entry with the programs that read images back."""
    return imagekit.tools_entry(
        ("btrfs-progs", "e2fsprogs", "erofs-utils", "squashfs-tools", "squashfs-tools-ng", "xfsprogs"),
        ("btrfs", "debugfs", "dump.erofs", "e2fsck", "fsck.erofs", "rdsquashfs", "unsquashfs", "xfs_db", "xfs_repair"),
    )
