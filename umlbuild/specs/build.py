"""`[build]`: how the kernel is compiled. Nothing of it changes a byte, and so it is in no key and in no bundle."""

from __future__ import annotations

from pydantic import Field

from umlbuild.specs.model import Model


class Build(Model):
    """How the kernel is compiled on the machine that builds. The result is the same with and without all of it."""

    jobs: int | None = Field(default=None, ge=1, le=4096)
    """How many compilers run at once; by default as many as there are cores, and as distcc's machines take. The
    environment's `UMLBUILD_JOBS` comes first."""
    ccache: bool = True
    """Whether ccache is used where it is installed."""
    distcc: bool = False
    """Whether the machines that distcc's own `DISTCC_HOSTS` names help; a recipe cannot name them. Those whose compiler
    is another one are left out."""
