"""The last touches on a disk image: mode, an mtime that only this content has, and sums that nobody makes again."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from umlbuild import digest
from umlbuild.host import sparse, sums
from umlbuild.host.process import EPOCH

IMAGE = "root.img"
SUMS = "root.sums"
_PAD = 4096
"""squashfs and erofs end at a multiple of it; UML rounds a disk up to 512 bytes."""


def seal(image: Path, below: Path | None = None) -> None:
    """An image is what it will be: sum it up and let nobody write to it. `below` is a sealed one that it is a copy of,
    for the most part.
    """
    size = image.stat().st_size
    if size % _PAD:
        os.truncate(image, size + -size % _PAD)
    with ThreadPoolExecutor(1) as beside:  # finding room for 290 MB takes the kernel 85 ms
        begun = beside.submit(sparse.start_writing, image)  # `host.publish` waits for it
        made = sums.of(image, below, sums.read(below.with_name(SUMS)) if below else None)
        begun.result()
    made.write(image.with_name(SUMS))
    stamp = mtime_of(made.content)
    image.chmod(0o444)
    os.utime(image, (stamp, stamp))
    digest.remember(image, made.content)  # or the store would read it a second time


def mtime_of(content: str) -> int:
    """Seconds: the epoch and 24 bits of the content's digest. A COW file knows its image by it."""
    return EPOCH + int(content[:6], 16)
