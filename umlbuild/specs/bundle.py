"""Spec of the bundle step: what stands in the runnable directory besides kernel and images."""

from __future__ import annotations

from typing import ClassVar

from umlbuild.specs.model import Spec


class BundleSpec(Spec):
    """The bundle stage. Inputs `kernel`, `image`, `disk0`, `disk1`, … for data disks, and `filters` and `helper` if
    they are needed.

    Output: `linux`, `lib/` (of a dynamic kernel: its loader and libraries), `root.img`, `disk<N>.img`,
    `filters/` (see FiltersSpec), `jail` (the helper), `seccomp.bpf`, `run` and `net` (0755), `manifest.toml`,
    `recipe.toml`.
    """

    STAGE: ClassVar[str] = "bundle"
    VERSION: ClassVar[int] = 6

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
    runs_with: tuple[str, ...] = ()
    """Programs that the machine needs where it runs; the host that builds it is told if it lacks one."""
    cmdline: str
    """The kernel command line, for the manifest."""
    recipe: str
    """The effective recipe as TOML, without secrets."""
