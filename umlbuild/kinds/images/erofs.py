"""`kind = "erofs"`: read-only, quicker to read than squashfs, larger; writes go to an overlay.

    [image]
    kind = "erofs"
    compression = "lz4hc"
    overlay = "disk"

Made from the tar by mkfs.erofs >= 1.7. Keeps file capabilities, user.* attributes and POSIX ACLs.
Source: mkfs.erofs(1) of 1.8; the kernel reads lz4 always, lzma since 5.16, deflate since 6.6, zstd
since 6.10 (fs/erofs/Kconfig).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.images.base import Format, label_of
from umlbuild.kinds.images.readonly import ReadOnlyKind
from umlbuild.specs.image import Command, ImageSpec

_LEVELS = {"lz4hc": 12, "zstd": 22, "lzma": 9, "deflate": 9}
_SYMBOLS = {"zstd": "EROFS_FS_ZIP_ZSTD", "lzma": "EROFS_FS_ZIP_LZMA", "deflate": "EROFS_FS_ZIP_DEFLATE"}


class Erofs(ReadOnlyKind):
    """An erofs, below an overlay."""

    kind: Literal["erofs"] = "erofs"
    compression: Literal["none", "lz4", "lz4hc", "zstd", "lzma", "deflate"] = "lz4hc"
    """lz4 and lz4hc are read by every kernel; zstd needs 6.10, deflate 6.6."""
    level: int | None = Field(default=None, ge=1)
    """Compression level: lz4hc 1..12, zstd 1..22, lzma and deflate 1..9. Default: the tool's."""
    label: str = "root"
    """Volume label, 15 bytes at most."""

    @field_validator("label")
    @classmethod
    def _label(cls, label: str) -> str:
        return label_of(label, 15, "erofs")

    @model_validator(mode="after")
    def _level(self) -> Erofs:
        most = _LEVELS.get(self.compression)
        if self.level is not None and most is None:
            raise ValueError(f"level: {self.compression} has no levels in erofs")
        if self.level is not None and most is not None and self.level > most:
            raise ValueError(f"level: {self.compression} has levels 1 to {most}, not {self.level}")
        return self

    @property
    def filesystem(self) -> str:
        return "erofs"

    @property
    def own_tools(self) -> tuple[str, ...]:
        return ("erofs-utils",)

    @property
    def own_programs(self) -> tuple[str, ...]:
        return ("mkfs.erofs",)

    def contribute(self) -> Contribution:
        own = Contribution(kconfig=symbols.EROFS, optional_kconfig=symbols.EROFS_OPTIONAL)
        symbol = _SYMBOLS.get(self.compression)
        return self.overlaid(own, Contribution(kconfig={symbol: "y"} if symbol else {}))

    def spec(self, *, uuid: str) -> ImageSpec:
        level = f",level={self.level}" if self.level is not None else ""
        compress = () if self.compression == "none" else (f"-z{self.compression}{level}",)
        make = (
            "mkfs.erofs", "--quiet", "-b4096", *compress, "-T{epoch}", "-U{uuid}", "-L", self.label,
            "--tar=f", "{image}", "{tar}",
        )  # fmt: skip
        commands = (Command(argv=make),)
        return Format("erofs", commands, populate="tar", need=None).spec(uuid=uuid, size=None)
