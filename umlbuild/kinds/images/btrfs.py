"""`kind = "btrfs"`: read-write, everything checksummed, snapshots in the guest.

    [image]
    kind = "btrfs"
    size = "2G"

Needs 128 MB at least. Written by umlbuild itself, straight from the tar, with right owners, times, hard links,
file capabilities, POSIX ACLs and user.* attributes; `btrfs check` of btrfs-progs then reads every block of it
before it is taken. (mkfs.btrfs --rootdir takes owners from a real tree and the order of the files from the
host's file system, so its bytes are not the same everywhere; btrfs-convert leaves a subvolume that keeps the
blocks of deleted files. Source: mkfs.btrfs(8), btrfs-convert(8) and btrfs-check(8) of 6.14, all tried.)

Metadata is kept once, not twice as mkfs.btrfs does on one device: both copies would be in one file of the host.
Deleted files give their blocks back at the next commit of the file system, within 30 s, or at once with `sync`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.images.base import Format, WritableKind, at_least, label_of
from umlbuild.specs.image import Command, ImageSpec, Need

LEAST = 128 << 20
"""mkfs.btrfs itself wants 109 MiB."""

LONGEST_LABEL = 255
TOOLS = ("btrfs-progs",)
PROGRAMS = ("btrfs",)


def format_of(label: str, *, populated: bool) -> Format:
    """How a btrfs is written, from the tar or empty."""
    check = ("btrfs", "check", "--readonly", "--check-data-csum", "{image}")
    return Format(
        name="btrfs",
        commands=(Command(argv=check),),
        populate="tar" if populated else "empty",
        need=Need(fixed=40 << 20, inode=1024, per_mille=10, least=LEAST),
        writer="btrfs",
        label=label,
    )


class Btrfs(WritableKind):
    """A btrfs file system."""

    kind: Literal["btrfs"] = "btrfs"
    label: str = "root"
    """Volume label, 255 bytes at most."""

    @field_validator("size")
    @classmethod
    def _size(cls, size: str) -> str:
        return at_least(size, LEAST, "btrfs")

    @field_validator("label")
    @classmethod
    def _label(cls, label: str) -> str:
        return label_of(label, LONGEST_LABEL, "btrfs")

    @property
    def filesystem(self) -> str:
        return "btrfs"

    @property
    def mount_options(self) -> str:
        return "discard"

    @property
    def tools(self) -> tuple[str, ...]:
        return TOOLS

    @property
    def programs(self) -> tuple[str, ...]:
        return PROGRAMS

    def contribute(self) -> Contribution:
        return Contribution(kconfig=symbols.BTRFS, optional_kconfig=symbols.BTRFS_OPTIONAL)

    def spec(self, *, uuid: str) -> ImageSpec:
        return self.sized(format_of(self.label, populated=True), uuid)
