"""Kernel sources: where a machine's kernel comes from. One file each."""

from typing import Annotated

from pydantic import Field

from umlbuild.kinds.kernels.debian import Debian
from umlbuild.kinds.kernels.prebuilt import Prebuilt
from umlbuild.kinds.kernels.tarball import Tarball
from umlbuild.kinds.kernels.tree import Tree

KernelSource = Annotated[Debian | Prebuilt | Tarball | Tree, Field(discriminator="kind")]
KINDS = (Debian, Prebuilt, Tarball, Tree)
