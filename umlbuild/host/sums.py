"""The sums of a disk image, chunk by chunk: both that it is told by, in one go, and only of what is new in a copy.

Measured: 300 MB of data on two cores 0.26 s; a copy in which two chunks are new 0.08 s.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from umlbuild import digest
from umlbuild.digest import CHUNK, Sha256
from umlbuild.host import cksum


@dataclass(frozen=True)
class Sums:
    """What is known of an image."""

    size: int
    chunks: Mapping[int, tuple[Sha256, int]]
    """Offset → digest and remainder of each chunk that is not all zeros, see `digest.of_chunk` and `cksum.of_chunk`."""

    @property
    def content(self) -> Sha256:
        """As `digest.of_image`."""
        return digest.of_chunks(self.size, {at: told for at, (told, _) in self.chunks.items()})

    @property
    def cksum(self) -> str:
        """As `cksum.of_file`."""
        return cksum.of_chunks(self.size, {at: remainder for at, (_, remainder) in self.chunks.items()})

    def runs(self) -> Iterator[tuple[int, int]]:
        """(first, count) of neighbouring chunks that are not all zeros, in chunks."""
        first = count = 0
        for at in sorted(self.chunks):
            if count and at == (first + count) * CHUNK:
                count += 1
                continue
            if count:
                yield first, count
            first, count = at // CHUNK, 1
        if count:
            yield first, count

    def cksum_of(self, first: int, count: int) -> str:
        """As `cksum`, of these chunks alone."""
        start, end = first * CHUNK, min((first + count) * CHUNK, self.size)
        chunks = {at - start: remainder for at, (_, remainder) in self.chunks.items() if start <= at < end}
        return cksum.of_chunks(end - start, chunks)

    def write(self, path: Path) -> None:
        """Write them to a file."""
        path.write_text(json.dumps([self.size, sorted(self.chunks.items())]) + "\n", encoding="ascii")


def read(path: Path) -> Sums:
    """What `write` wrote."""
    size, chunks = json.loads(path.read_text(encoding="ascii"))
    return Sums(size, {at: (Sha256(told), remainder) for at, (told, remainder) in chunks})


def of(image: Path, below: Path | None = None, known: Sums | None = None) -> Sums:
    """The sums of an image. Of one that is a copy of `below` for the most part, only what is not `known` is summed."""
    with image.open("rb", buffering=0) as file, (below or image).open("rb", buffering=0) as other:
        new, old = file.fileno(), other.fileno()
        size = os.fstat(new).st_size

        def one(at: int) -> tuple[Sha256, int] | None:
            block = os.pread(new, CHUNK, at)
            if known is not None and at in known.chunks and block == os.pread(old, CHUNK, at):
                return known.chunks[at]
            told = digest.of_chunk(block)
            return None if told is None else (told, cksum.of_chunk(block))

        starts = list(digest.chunks_of(new, size))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            found = zip(starts, threads.map(one, starts), strict=True)
            return Sums(size, {at: told for at, told in found if told is not None})
