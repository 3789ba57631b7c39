"""What a kind adds to the plan. Pure data; the plan merges the contributions of all kinds of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from umlbuild.specs.rootfs import Entry


@dataclass(frozen=True)
class Contribution:
    """Everything that one choice in a recipe brings along."""

    kconfig: Mapping[str, str] = field(default_factory=dict)
    """Symbol without CONFIG_ → "y", "m", "n", number or quoted string."""
    optional_kconfig: Mapping[str, str] = field(default_factory=dict)
    """As `kconfig`, but set only if this kernel version knows the symbol."""
    cmdline: tuple[str, ...] = ()
    """Words of the kernel command line."""
    packages: tuple[str, ...] = ()
    """Debian packages for the root."""
    entries: tuple[Entry, ...] = ()
    """Files, directories and symlinks for the root."""
    enable: tuple[str, ...] = ()
    """Services to enable."""
    disable: tuple[str, ...] = ()
    """Services to disable."""
