"""`[[disk]]`: a data disk beside the root, empty when the machine first starts.

    [[disk]]
    size = "8G"
    filesystem = "ext4"
    mount = "/srv"

The first is ubdb, the next ubdc, and so on. Data disks are raw files, synchronous by default: only with
UML's `s` flag does the guest's fsync reach the host (Source: uml-facts 4.6). `d` is always on: without it a
guest could write a forged COW header to its disk and read host files (uml-facts 4.4).
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from umlbuild.kinds import size as sizes
from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.images import btrfs, ext4, xfs
from umlbuild.kinds.images.base import FAKETIME, Format, label_of
from umlbuild.kinds.size import Size
from umlbuild.specs.image import ImageSpec
from umlbuild.specs.model import Model

_FLAGS = {"s": "synchronous", "d": "raw", "c": "shared, not locked", "t": "no discard", "r": "read-only"}
_LONGEST_LABEL = {"ext4": 16, "xfs": 12, "btrfs": btrfs.LONGEST_LABEL, "none": 0}
_LEAST = {"ext4": ext4.LEAST, "xfs": xfs.LEAST, "btrfs": btrfs.LEAST, "none": sizes.BLOCK}


class Disk(Model):
    """A data disk."""

    size: Size
    """Apparent size; the file on the host is sparse and shrinks when the guest deletes."""
    filesystem: Literal["ext4", "btrfs", "xfs", "none"] = "ext4"
    """What is on it at first; "none" is a disk of zeros."""
    label: str = ""
    """Volume label: ext4 16 bytes, xfs 12, btrfs 255."""
    mount: str | None = None
    """Where the guest mounts it, e.g. "/srv"; never by default."""
    flags: str = "sd"
    """UML's letters: s synchronous (the guest's fsync reaches the host), d raw (always on), c shared without
    locking, t no discard, r read-only."""

    @field_validator("flags")
    @classmethod
    def _flags(cls, flags: str) -> str:
        for letter in flags:
            if letter not in _FLAGS:
                known = ", ".join(f"{name} ({what})" for name, what in _FLAGS.items())
                raise ValueError(f"{letter!r} is no flag of a disk; there are {known}")
        if len(set(flags)) != len(flags):
            raise ValueError(f"{flags!r} has a flag twice")
        return flags if "d" in flags else flags + "d"

    @field_validator("mount")
    @classmethod
    def _mount(cls, mount: str | None) -> str | None:
        if mount is None:
            return mount
        parts = mount.split("/")
        if parts[0] or len(parts) < 2 or any(part in ("", ".", "..") for part in parts[1:]):
            raise ValueError(f"{mount!r} is not a mount point (like /srv)")
        if any(ord(c) <= 32 or ord(c) == 127 or c in '\\"' for c in mount):
            raise ValueError(f"{mount!r} has a blank or control character in it")
        return mount

    @model_validator(mode="after")
    def _fits(self) -> Disk:
        least = _LEAST[self.filesystem]
        if sizes.bytes_of(self.size) < least:
            need = sizes.about(least)
            raise ValueError(f"size: {self.size} is too small for {self.filesystem}; it needs {need}")
        if self.filesystem == "none" and (self.mount is not None or self.label):
            raise ValueError('filesystem = "none" can have neither mount nor label')
        label_of(self.label, _LONGEST_LABEL[self.filesystem], self.filesystem)
        return self

    @property
    def mount_options(self) -> str:
        """fstab's fourth field."""
        words = ["defaults" if "t" in self.flags else "discard"]
        if "r" in self.flags:
            words.append("ro")
        return ",".join([*words, "nosuid", "nodev"])

    @property
    def checked(self) -> bool:
        """Whether fsck has a use at boot (fstab's last field)."""
        return self.filesystem == "ext4" and "r" not in self.flags

    @property
    def tools(self) -> tuple[str, ...]:
        """Debian packages whose programs write it."""
        return {
            "ext4": ext4.TOOLS, "xfs": xfs.Xfs().tools, "btrfs": btrfs.TOOLS, "none": (),
        }[self.filesystem]  # fmt: skip

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of those programs."""
        return {
            "ext4": ("mke2fs",), "xfs": ("mkfs.xfs",), "btrfs": btrfs.PROGRAMS, "none": (),
        }[self.filesystem]  # fmt: skip

    @property
    def libraries(self) -> tuple[str, ...]:
        """Libraries that they load by name."""
        return {"ext4": ext4.LIBRARIES, "xfs": (FAKETIME,)}.get(self.filesystem, ())

    def contribute(self) -> Contribution:
        """Kconfig symbols."""
        sets = {
            "ext4": (symbols.EXT4, symbols.EXT4_OPTIONAL),
            "xfs": (symbols.XFS, symbols.XFS_OPTIONAL),
            "btrfs": (symbols.BTRFS, symbols.BTRFS_OPTIONAL),
            "none": ({}, {}),
        }
        yes, optional = sets[self.filesystem]
        return Contribution(kconfig=yes, optional_kconfig=optional)

    def spec(self, *, uuid: str) -> ImageSpec:
        """The spec of the step that makes its pristine image."""
        return self._format().spec(uuid=uuid, size=sizes.bytes_of(self.size))

    def _format(self) -> Format:
        match self.filesystem:
            case "ext4":
                return ext4.format_of(self.label, sizes.bytes_of(self.size), populated=False)
            case "xfs":
                return xfs.format_of(self.label, populated=False)
            case "btrfs":
                return btrfs.format_of(self.label, populated=False)
            case "none":
                return Format("raw disk", (), populate="empty", need=None)
