"""Spec of the image steps: a root file system's tar (or nothing, for a data disk) becomes a disk image."""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.specs.model import Model, Spec


class Need(Model):
    """How large a file system must be for its content:

    fixed + (whole blocks of the content + inodes · inode) · (1 + per_mille / 1000).
    """

    fixed: int
    """Bytes of journal, superblocks and the like."""
    inode: int
    """Bytes of metadata for each file."""
    per_mille: int
    """Growth for maps, trees and margins."""
    least: int
    """Bytes that the tool wants at least."""


class Command(Model):
    """One program of the tools entry. The stage fills in {image}, {tar}, {protofile}, {fixups}, {uuid},
    {epoch}, {inodes} and {work}.
    """

    argv: tuple[str, ...]
    stdin: Literal["nothing", "tar", "fixups"] = "nothing"
    silent: bool = False
    """The program reports failures only by what it says (debugfs): any word of it is one."""

    @property
    def wants_fixups(self) -> bool:
        """Whether it is left out when there is nothing to mend."""
        return self.stdin == "fixups" or "{fixups}" in self.argv


class ImageSpec(Spec):
    """The image stage. Inputs `root` (entry with rootfs.tar; absent for an empty data disk), `modules` (kernel entry
    with modules.tar, if they are still to be put into it) and `tools` (entry with the programs below). Output:
    `root.img`, sparse, mode 0444, its mtime made of its content (a COW file knows its backing file by size and mtime in
    seconds), and `root.sums`, see `host.sums`.
    """

    STAGE: ClassVar[str] = "image"
    VERSION: ClassVar[int] = 3

    format: str
    """Name of the image kind, for messages only."""
    uuid: str
    """Of the file system; derived from the recipe's name, so that it is stable."""
    size: int | None
    """Apparent bytes; None: what `need` says and `spare`, or what the commands make (squashfs, erofs)."""
    need: Need | None = None
    """For an automatic size; with a fixed one, to tell how much would have been enough."""
    spare: int = 0
    """Free bytes to add to an automatic size."""
    remove: tuple[str, ...] = ()
    """Paths and patterns of the root that are left out, as `ConfigureSpec.remove`."""
    room: int = 0
    """Bytes of an automatic size for what `edited_image` puts in."""
    inodes: int = 0
    """Files that `edited_image` puts in, at most."""
    populate: Literal["tar", "protofile", "empty"]
    """How the content is got: the tar itself; an xfs {protofile} made of it; not at all."""
    commands: tuple[Command, ...]
    """Run in order; none leaves a raw disk of zeros."""
    fixups: Literal["debugfs", "xfs_db"] | None = None
    """The language of the {fixups}: what the first command leaves out of the content."""
    files: tuple[tuple[str, str], ...] = ()
    """(name, text) of files that the commands find in {work}."""
    environment: tuple[tuple[str, str], ...] = ()
    """(name, value) for the commands; {work} is filled in."""
    preload: tuple[str, ...] = ()
    """Libraries of the tools tree to preload into the commands."""
    writer: Literal["btrfs"] | None = None
    """A file system that the stage writes itself, before the commands, which then only check it."""
    label: str | None = None
    """Volume label, for the stage's own writer; the commands have it in their words."""


class EditedImageSpec(Spec):
    """The edited_image stage. Inputs `image` (entry with root.img), `changes` (entry of the configure stage that is not
    whole) and `tools` (with `editor`). Output: `root.img`, as the image stage's.
    """

    STAGE: ClassVar[str] = "edited_image"

    editor: Literal["debugfs"]
    """What makes the changes."""
    preload: tuple[str, ...] = ()
    """As `ImageSpec.preload`."""
