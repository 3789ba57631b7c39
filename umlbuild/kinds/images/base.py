"""What every image kind can say about itself, and how a file system is made. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from umlbuild.kinds import size as sizes
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.size import AutoSize
from umlbuild.specs.image import Command, EditedImageSpec, ImageSpec, Need
from umlbuild.specs.model import Model

EPOCH_TEXT = "2023-11-14 22:13:20"
"""`umlbuild.host.process.EPOCH` as libfaketime wants it, in UTC."""

FAKETIME = "faketime/libfaketime.so.1"
"""Stops the clock and seeds getrandom(2), for tools that know no SOURCE_DATE_EPOCH.

Source: libfaketime's README (FAKETIME, FAKERANDOM_SEED); mkfs.xfs 6.13 twice: byte-identical.
"""

FAKETIME_ENVIRONMENT = (
    ("FAKETIME", EPOCH_TEXT),
    ("FAKERANDOM_SEED", "0x12345678DEADBEEF"),
    ("FAKETIME_DONT_RESET", "1"),
    ("NO_FAKE_STAT", "1"),
)


@dataclass(frozen=True)
class Format:
    """How one file system is written."""

    name: str
    commands: tuple[Command, ...]
    populate: Literal["tar", "protofile", "empty"]
    need: Need | None
    fixups: Literal["debugfs", "xfs_db"] | None = None
    files: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    preload: tuple[str, ...] = ()
    writer: Literal["btrfs"] | None = None
    label: str | None = None

    def spec(self, *, uuid: str, size: int | None, spare: int = 0) -> ImageSpec:
        """The image step's spec."""
        return ImageSpec(
            format=self.name, uuid=uuid, size=size, need=self.need, spare=spare, populate=self.populate,
            commands=self.commands, fixups=self.fixups, files=self.files, environment=self.environment,
            preload=self.preload, writer=self.writer, label=self.label,
        )  # fmt: skip


class ImageKind(Model):
    """What plan, guest files and launcher ask of an image, whatever its kind."""

    @property
    def filesystem(self) -> str:
        """The type for fstab and `rootfstype=`."""
        raise NotImplementedError

    @property
    def mount_options(self) -> str:
        """fstab's fourth field."""
        raise NotImplementedError

    @property
    def root_flags(self) -> str:
        """`rootflags=` of the kernel; "" for none."""
        return ""

    @property
    def checked(self) -> bool:
        """Whether fsck has a use at boot (fstab's last field)."""
        return False

    @property
    def read_only(self) -> bool:
        """Whether the root is an overlay over this image."""
        return False

    @property
    def tools(self) -> tuple[str, ...]:
        """Debian packages whose programs write it (with all that they depend on)."""
        raise NotImplementedError

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of those programs."""
        raise NotImplementedError

    @property
    def libraries(self) -> tuple[str, ...]:
        """Libraries that they load by name."""
        return ()

    @property
    def editor(self) -> EditedImageSpec | None:
        """How files are put into a finished image; None: it is written anew."""
        return None

    def contribute(self) -> Contribution:
        """Kconfig symbols and guest files."""
        raise NotImplementedError

    def spec(self, *, uuid: str) -> ImageSpec:
        """The spec of its image step."""
        raise NotImplementedError


class WritableKind(ImageKind):
    """A file system that the guest writes to, of a declared size."""

    size: AutoSize = "2G"
    """Apparent size: "2G", "auto" (what the content needs) or "auto+256M"; on the disk it is sparse."""

    @property
    def fixed_size(self) -> int | None:
        """Bytes, None for an automatic size."""
        return sizes.bytes_of(self.size) if sizes.spare_of(self.size) is None else None

    def sized(self, made: Format, uuid: str) -> ImageSpec:
        """The spec of a format with this kind's size."""
        return made.spec(uuid=uuid, size=self.fixed_size, spare=sizes.spare_of(self.size) or 0)


def at_least(text: str, least: int, what: str) -> str:
    """`text` again. Raises: ValueError if it is a fixed size below `least`."""
    if sizes.spare_of(text) is None and sizes.bytes_of(text) < least:
        raise ValueError(f"{text} is too small for {what}; it needs {sizes.about(least)} at least")
    return text


def label_of(text: str, longest: int, what: str) -> str:
    """`text` again. Raises: ValueError if it cannot be a label of that file system."""
    if len(text.encode()) > longest:
        raise ValueError(f"{text!r} is too long for a label of {what}; it holds {longest} bytes")
    if any(ord(c) <= 32 or c in "/\\{}" or ord(c) > 126 for c in text):
        raise ValueError(f"{text!r} cannot be a label: printable ASCII without blanks, slashes and braces")
    return text


def both(*sets: Mapping[str, str]) -> dict[str, str]:
    """Several sets of symbols as one."""
    merged: dict[str, str] = {}
    for symbols in sets:
        merged.update(symbols)
    return merged
