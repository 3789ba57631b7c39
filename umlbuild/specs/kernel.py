"""Specs of the kernel steps: source, config, build."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from umlbuild.specs.model import Model, Spec
from umlbuild.specs.packages import DebPin

KconfigValue = str
"""How .config spells it: "y", "m", "n", a number, or a string with its quotes."""


class DebSource(Model):
    """A linux-source-* package; the tarball inside is unpacked."""

    kind: Literal["deb"] = "deb"
    pin: DebPin


class TarballSource(Model):
    """A tarball, fetched from `url` (or found among the user's files by its digest)."""

    kind: Literal["tarball"] = "tarball"
    url: str
    """Not in the key: the sha256 is what counts."""
    sha256: str
    compression: Literal["xz", "gz", "zst"]


class TreeSource(Model):
    """A directory of the user's, by digest; read in place, copied only if there are patches."""

    kind: Literal["tree"] = "tree"
    digest: str


Source = Annotated[DebSource | TarballSource | TreeSource, Field(discriminator="kind")]


class KernelSourceSpec(Spec):
    """The kernel-source stage. Input `packages` for a DebSource. Output: `linux/`, the patched tree (for an
    unpatched TreeSource nothing: the later stages are given the tree itself as a source by digest).
    """

    STAGE: ClassVar[str] = "kernel_source"

    source: Source
    patches: tuple[str, ...] = ()
    """Digests, applied in order with `patch -p1`."""


class KernelConfigSpec(Spec):
    """The kernel-config stage. Input `source` if there is no `tree`. Output: `config`, the result of
    olddefconfig with every request honoured.
    """

    STAGE: ClassVar[str] = "kernel_config"

    tree: str | None
    """Digest of an unpatched user's tree; None: `linux/` of the kernel-source step."""
    base: Literal["defconfig", "tinyconfig", "file"]
    base_file: str | None = None
    """Digest of the .config to start from, if base is "file"."""
    symbols: tuple[tuple[str, KconfigValue], ...]
    """(symbol without CONFIG_, value), sorted: contributions, then fragments, then options, merged."""
    optional_symbols: tuple[tuple[str, KconfigValue], ...] = ()
    """As `symbols`, but asked for only where the tree knows the symbol."""


class KernelSpec(Spec):
    """The kernel stage. Input `config`, and `source` if there is no `tree`. Output: `linux` (stripped),
    `config`, `release` (one line), `modules.tar` (`lib/modules/<release>/…` with depmod's files, owned by
    root, nothing for the directories above; an empty archive without MODULES).

    `linux` is static from kernel 7.0 on (by the source's own version). An older one is dynamic; then there is
    also `lib/` (its libraries and their loader, plain files) and `interpreter` (one line: where `linux` expects
    the loader).
    """

    STAGE: ClassVar[str] = "kernel"
    VERSION: ClassVar[int] = 2

    tree: str | None
    """Digest of an unpatched user's tree; None: `linux/` of the kernel-source step."""
    xstate: str
    """The C source of `lib/xstate.so`, for a dynamic kernel."""


class PrebuiltKernelSpec(Spec):
    """The prebuilt-kernel stage: a user-mode-linux package. Input `packages`. Output: as the kernel stage's,
    dynamic.
    """

    STAGE: ClassVar[str] = "prebuilt_kernel"

    pin: DebPin
    libraries: tuple[DebPin, ...]
    """Packages that have the libraries which the kernel runs with."""
    compiler: DebPin
    """The package of tcc, which compiles `xstate`: nothing of the host's has to."""
    xstate: str
    """The C source of `lib/xstate.so`."""
    built_in: tuple[str, ...] = ()
    """Symbols that must not be modules: the root's file system. Sorted."""
