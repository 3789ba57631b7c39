"""`kind = "xfs"`: read-write. Needs 300 MB at least; 64 MB of them are its log.

    [image]
    kind = "xfs"
    size = "2G"

mkfs.xfs takes no tar; it gets a prototype file with owners and modes, so that the content can be unpacked
by anybody. What a prototype cannot say (sticky bits, hard links, file capabilities, user.* attributes) is
set by xfs_db afterwards. Files get one fixed time. POSIX ACLs are left out, and said so in the log.
Source: mkfs.xfs(8) (-p, slashes_are_spaces), xfs_db(8) of 6.13 (link, attr_set, write).
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.images.base import (
    FAKETIME,
    FAKETIME_ENVIRONMENT,
    Format,
    WritableKind,
    at_least,
    label_of,
)  # fmt: skip
from umlbuild.specs.image import Command, ImageSpec, Need

LEAST = 300 << 20


def format_of(label: str, *, populated: bool) -> Format:
    """How an xfs is written, from a prototype file or empty."""
    source = ("-p", "{protofile},slashes_are_spaces=1") if populated else ()
    make = ("mkfs.xfs", "-q", "-f", "-K", "-m", "uuid={uuid}", "-L", label, *source, "{image}")
    mend = Command(argv=("xfs_db", "-x", "{image}"), stdin="fixups")
    return Format(
        name="xfs",
        commands=(Command(argv=make), mend) if populated else (Command(argv=make),),
        populate="protofile" if populated else "empty",
        need=Need(fixed=80 << 20, inode=512 + 64, per_mille=60, least=LEAST),
        fixups="xfs_db" if populated else None,
        environment=FAKETIME_ENVIRONMENT,
        preload=(FAKETIME,),
    )


class Xfs(WritableKind):
    """An XFS file system."""

    kind: Literal["xfs"] = "xfs"
    label: str = "root"
    """Volume label, 12 bytes at most."""

    @field_validator("size")
    @classmethod
    def _size(cls, size: str) -> str:
        return at_least(size, LEAST, "xfs")

    @field_validator("label")
    @classmethod
    def _label(cls, label: str) -> str:
        return label_of(label, 12, "xfs")

    @property
    def filesystem(self) -> str:
        return "xfs"

    @property
    def mount_options(self) -> str:
        return "discard"

    @property
    def tools(self) -> tuple[str, ...]:
        return ("xfsprogs", "libfaketime")

    @property
    def programs(self) -> tuple[str, ...]:
        return ("mkfs.xfs", "xfs_db")

    @property
    def libraries(self) -> tuple[str, ...]:
        return (FAKETIME,)

    def contribute(self) -> Contribution:
        return Contribution(kconfig=symbols.XFS, optional_kconfig=symbols.XFS_OPTIONAL)

    def spec(self, *, uuid: str) -> ImageSpec:
        return self.sized(format_of(self.label, populated=True), uuid)
