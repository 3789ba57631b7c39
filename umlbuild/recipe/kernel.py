"""`[kernel]`: where the kernel comes from and how it is configured."""

from __future__ import annotations

from pydantic import Field

from umlbuild.kinds.kernels import KernelSource
from umlbuild.recipe.types import ModuleName, Symbol
from umlbuild.specs.model import Model


class Kernel(Model):
    """The kernel of the machine."""

    source: KernelSource
    """Where it comes from: `debian`, `prebuilt`, `tarball` or `tree`."""
    base: str = "tinyconfig"
    """What the configuration starts from: `tinyconfig` (small: only what the recipe needs is compiled),
    `defconfig` (UML's own), or the path of a .config file."""
    config: tuple[str, ...] = ()
    """Paths of Kconfig fragments, merged in order over what the recipe's other choices need."""
    options: dict[Symbol, bool | int | str] = Field(default_factory=dict)
    """Single symbols, over everything else: true (y), false (n), "m", a number or a string."""
    modules: tuple[ModuleName, ...] = ()
    """Modules that are loaded at boot, in this order."""
    lock_modules: bool = True
    """Whether module loading goes off for good once `modules` are loaded: a guest's root that can load
    modules runs code in the UML process on the host."""
    patches: tuple[str, ...] = ()
    """Paths of patches, applied in order with `patch -p1` to a private copy of the source."""
