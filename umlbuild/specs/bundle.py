"""Spec of the bundle step: what stands in the runnable directory besides kernel and images."""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.specs.model import Model, Spec


class Source(Model):
    """A file or tree of the user's that the recipe names."""

    name: str
    """As the recipe spells it."""
    at: str
    """The key path that names it (the first, if several do)."""
    kind: Literal["kept", "large", "tree", "secret"]
    """Whether the bundle has a copy, or why it has none."""
    sha256: str = ""
    """Of its content; nothing is said of a secret."""


class BundleSpec(Spec):
    """The bundle stage. Inputs `kernel`, `image`, `disk0`, `disk1`, … for data disks, and `filters` and `helper` if
    they are needed.

    Output: `linux`, `lib/` (of a dynamic kernel: its loader and libraries), `root.img`, `disk<N>.img`,
    `filters/` (see FiltersSpec), `jail` (the helper), `seccomp.bpf`, `run` and `net` (0755), `manifest.toml`,
    `recipe.toml`, `recipe.lock.toml`, `sources/<sha256>` (the user's files that the recipe names, as far as they are
    kept).
    """

    STAGE: ClassVar[str] = "bundle"
    VERSION: ClassVar[int] = 9

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
    lock: str = ""
    """The lock as TOML."""
    sources: tuple[Source, ...] = ()
    """Sorted by name."""
    built_with: tuple[str, ...] = ()
    """The versions of the build host's programs that shaped the bytes, for who builds it again."""
