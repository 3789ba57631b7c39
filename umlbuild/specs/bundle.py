"""Spec of the bundle step: what stands in the runnable directory besides kernel and images."""

from __future__ import annotations

from typing import ClassVar

from umlbuild.specs.model import Spec


class BundleSpec(Spec):
    """The bundle stage. Inputs `kernel`, `image`, and `disk0`, `disk1`, … for data disks.

    Output: `linux`, `lib/` (of a dynamic kernel: its loader and libraries), `root.img`, `disk<N>.img`,
    `seccomp.bpf`, `run` and `net` (0755), `manifest.toml`, `recipe.toml`.
    """

    STAGE: ClassVar[str] = "bundle"
    VERSION: ClassVar[int] = 5

    name: str
    launcher: str
    """The text of `run`. The stage fills in what only the finished images know: `@IMAGE_SIZE@` (bytes),
    `@IMAGE_MTIME@` (seconds), `@IMAGE_ID@` (16 hexadecimal digits of its sha256), `@DISK0_SIZE@`,
    `@DISK0_MTIME@`, `@DISK0_ID@` and so on, `@KERNEL_RELEASE@`, `@INTERPRETER@` and `@SUMS@` (all other files
    as cksum prints them).
    """
    net: str = ""
    """The text of `net`, which makes the host's side of the network; "": there is none to make."""
    filter: str
    """The sandbox's filter of system calls (an array of struct sock_filter), as hexadecimal digits."""
    cmdline: str
    """The kernel command line, for the manifest."""
    recipe: str
    """The effective recipe as TOML, without secrets."""
