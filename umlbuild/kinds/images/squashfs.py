"""`kind = "squashfs"`: read-only and small (a third of the tar with zstd); writes go to an overlay.

    [image]
    kind = "squashfs"
    compression = "zstd"
    overlay = "tmpfs"

Made from the tar by sqfstar. File capabilities and user.* attributes are kept; POSIX ACLs are not:
the format has no place for them. sqfstar gives the root directory mode 0777 unless told.
Source: sqfstar(1) of 4.6.1; fs/squashfs/xattr.c (user, trusted and security only).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.images.base import Format
from umlbuild.kinds.images.readonly import ReadOnlyKind
from umlbuild.specs.image import Command, ImageSpec

_LEVELS = {"zstd": 22, "gzip": 9}
_DEFAULT_LEVEL = 9
_SYMBOLS = {"zstd": "SQUASHFS_ZSTD", "gzip": "SQUASHFS_ZLIB", "xz": "SQUASHFS_XZ", "lz4": "SQUASHFS_LZ4"}


class Squashfs(ReadOnlyKind):
    """A squashfs, below an overlay."""

    kind: Literal["squashfs"] = "squashfs"
    compression: Literal["zstd", "gzip", "xz", "lz4"] = "zstd"
    """zstd is small and quick; xz smallest and slow; lz4 quickest to read."""
    level: int | None = Field(default=None, ge=1)
    """Compression level: zstd 1..22, gzip 1..9. Default: 9 (zstd 15, the tool's, is 6 % smaller
    and takes ten times as long)."""

    @model_validator(mode="after")
    def _level(self) -> Squashfs:
        most = _LEVELS.get(self.compression)
        if self.level is not None and most is None:
            raise ValueError(f"level: {self.compression} has no levels in squashfs")
        if self.level is not None and most is not None and self.level > most:
            raise ValueError(f"level: {self.compression} has levels 1 to {most}, not {self.level}")
        return self

    @property
    def filesystem(self) -> str:
        return "squashfs"

    @property
    def own_tools(self) -> tuple[str, ...]:
        return ("squashfs-tools",)

    @property
    def own_programs(self) -> tuple[str, ...]:
        return ("sqfstar",)

    def contribute(self) -> Contribution:
        own = Contribution(kconfig=symbols.SQUASHFS, optional_kconfig=symbols.SQUASHFS_OPTIONAL)
        return self.overlaid(own, Contribution(kconfig={_SYMBOLS[self.compression]: "y"}))

    def spec(self, *, uuid: str) -> ImageSpec:
        effort = self.level or (_DEFAULT_LEVEL if self.compression in _LEVELS else None)
        level = ("-Xcompression-level", str(effort)) if effort is not None else ()
        # Times come from SOURCE_DATE_EPOCH in the environment; giving options too is an error.
        make = (
            "sqfstar", "-comp", self.compression, *level, "-no-progress", "-exit-on-error",
            "-root-mode", "755", "-root-uid", "0", "-root-gid", "0", "{image}",
        )  # fmt: skip
        commands = (Command(argv=make, stdin="tar"),)
        return Format("squashfs", commands, populate="tar", need=None).spec(uuid=uuid, size=None)
