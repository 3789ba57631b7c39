"""Spec of the bundle step: what stands in the runnable directory besides kernel and images."""

from __future__ import annotations

from typing import ClassVar

from umlbuild.specs.model import Spec


class BundleSpec(Spec):
    """The bundle stage. Inputs `kernel`, `image`, and `disk0`, `disk1`, … for data disks.

    Output: `linux`, `root.img`, `disk<N>.img`, `run` (0755), `manifest.toml`, `recipe.toml`.
    """

    STAGE: ClassVar[str] = "bundle"

    name: str
    launcher: str
    """The text of `run`. The stage fills in what only the finished images know: `@IMAGE_SIZE@` (bytes),
    `@IMAGE_MTIME@` (seconds), `@IMAGE_ID@` (16 hexadecimal digits of its sha256), `@DISK0_SIZE@`,
    `@DISK0_MTIME@`, `@DISK0_ID@` and so on, and `@KERNEL_RELEASE@`.
    """
    cmdline: str
    """The kernel command line, for the manifest."""
    recipe: str
    """The effective recipe as TOML, without secrets."""
