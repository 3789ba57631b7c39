"""btrfs, for data disks: an empty file system, byte-identical when made again.

Not for the root: mkfs.btrfs takes owners and attributes from a real tree, which only root (or a user
namespace with subordinate ids) can lay out, and btrfs-convert leaves a subvolume that keeps the blocks of
deleted files. Source: mkfs.btrfs(8) and btrfs-convert(8) of 6.14, both tried.
"""

from __future__ import annotations

from umlbuild.kinds.images.base import FAKETIME, FAKETIME_ENVIRONMENT, Format
from umlbuild.specs.image import Command

LEAST = 128 << 20
"""mkfs.btrfs itself wants 109 MiB."""

TOOLS = ("btrfs-progs", "libfaketime")


def format_of(label: str) -> Format:
    """How an empty btrfs is written."""
    named = ("-L", label) if label else ()
    make = ("mkfs.btrfs", "-q", "-f", "-K", "-U", "{uuid}", "--device-uuid", "{uuid}", *named, "{image}")
    return Format(
        name="btrfs",
        commands=(Command(argv=make),),
        populate="empty",
        need=None,
        environment=FAKETIME_ENVIRONMENT,
        preload=(FAKETIME,),
        settle="btrfs",
    )
