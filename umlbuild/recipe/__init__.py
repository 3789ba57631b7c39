"""The recipe: the TOML that a person writes, validated and frozen. Pure.

`load.parse` makes one of data, with all problems told at once; `checks` finds the combinations that
cannot work. Reading files is the caller's affair.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from umlbuild.kinds.hardening import Hardening
from umlbuild.kinds.images import Disk, Image
from umlbuild.recipe.kernel import Kernel
from umlbuild.recipe.launch import Launch
from umlbuild.recipe.network import Network
from umlbuild.recipe.rootfs import Rootfs
from umlbuild.recipe.share import Share
from umlbuild.recipe.types import RecipeName, ReleaseVersion
from umlbuild.specs.build import Build
from umlbuild.specs.model import Model


class Recipe(Model):
    """Everything that one machine is made of."""

    format: Literal[1]
    """Version of the recipe format; this is 1."""
    name: RecipeName
    """Name of the machine, of its directory under dist/ and of UML's umid."""
    version: ReleaseVersion | None = None
    """Version of its releases, unless `doit release version=…` says another; 0 by default."""
    kernel: Kernel
    rootfs: Rootfs = Rootfs()
    image: Image
    """The file system of the root."""
    disk: tuple[Disk, ...] = ()
    """Data disks besides the root, ubdb first."""
    network: tuple[Network, ...] = Field(default=(), max_length=16)
    """Interfaces, vec0 first."""
    share: tuple[Share, ...] = Field(default=(), max_length=16)
    """Directories of the host that the guest sees."""
    hardening: Hardening = Hardening()
    launch: Launch = Launch()
    build: Build = Build()
