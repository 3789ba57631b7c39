"""Disk images: the root's file system, one file each, and data disks."""

from typing import Annotated

from pydantic import Field

from umlbuild.kinds.images.btrfs import Btrfs
from umlbuild.kinds.images.disk import Disk
from umlbuild.kinds.images.erofs import Erofs
from umlbuild.kinds.images.ext4 import Ext4
from umlbuild.kinds.images.squashfs import Squashfs
from umlbuild.kinds.images.xfs import Xfs

__all__ = ["KINDS", "Disk", "Image"]

Image = Annotated[Ext4 | Btrfs | Xfs | Squashfs | Erofs, Field(discriminator="kind")]
KINDS = (Ext4, Btrfs, Xfs, Squashfs, Erofs)
