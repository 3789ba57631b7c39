"""`source = { kind = "tree" }`: a directory with kernel sources, a git checkout or not.

It is keyed by its content (`.git` is left out) and never written to: objects go elsewhere, and patches
are applied to a copy. A tree in which a kernel was built in place has to be cleaned first (mrproper).

    [kernel]
    source = { kind = "tree", path = "../linux" }

Source: Documentation/kbuild/kbuild.rst, "O=": the source tree must be clean.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import override

from umlbuild.kinds.kernels.base import KernelModel
from umlbuild.specs.kernel import TreeSource
from umlbuild.specs.packages import DebPin


class Tree(KernelModel):
    """A directory with kernel sources."""

    kind: Literal["tree"] = "tree"
    path: str = Field(min_length=1)
    """The directory, relative to the recipe."""

    @override
    def wanted(self, root_suite: str) -> None:
        """No package."""

    @override
    def source(self, pin: DebPin | None, digest: str | None) -> TreeSource:
        assert digest is not None, "a tree is known by its digest"
        return TreeSource(digest=digest)

    @override
    def version_of(self, pin: DebPin | None = None) -> tuple[int, int] | None:
        """Unknown: the recipe's model reads no Makefile."""
        return None
