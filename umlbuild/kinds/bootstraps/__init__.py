"""Bootstrappers: what makes a Debian root file system out of packages. One file each."""

from typing import Annotated

from pydantic import Field

from umlbuild.kinds.bootstraps.debootstrap import Debootstrap
from umlbuild.kinds.bootstraps.extract import Extract
from umlbuild.kinds.bootstraps.mmdebstrap import Mmdebstrap

Bootstrap = Annotated[Mmdebstrap | Debootstrap | Extract, Field(discriminator="kind")]
KINDS = (Mmdebstrap, Debootstrap, Extract)
