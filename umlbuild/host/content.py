"""What a root file system's archive needs of a file system: sizes and counts. Reads, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from umlbuild.host.tarball import Member

BLOCK = 4096


def blocks_of(member: Member) -> int:
    """Bytes that a member needs in whole blocks."""
    if member.kind == "file":
        return -(-member.size // BLOCK) * BLOCK
    return BLOCK if member.kind == "dir" else 0


def size_of(members: Sequence[Member]) -> int:
    """Bytes in whole blocks, directories included."""
    return sum(map(blocks_of, members))


def inodes_of(members: Sequence[Member]) -> int:
    """Files, directories and the rest; hard links count once."""
    return sum(1 for member in members if member.kind != "link")


def largest(members: Sequence[Member], count: int = 10, depth: int = 3) -> list[tuple[str, int]]:
    """(directory, bytes) of the directories that hold most, down to `depth` parts, largest first.

    Each file counts in one directory only.
    """
    sums: dict[str, int] = {}
    for member in members:
        directory = "/" + "/".join(member.path.split("/")[:-1][:depth])
        sums[directory] = sums.get(directory, 0) + blocks_of(member)
    return sorted(sums.items(), key=lambda row: (-row[1], row[0]))[:count]
