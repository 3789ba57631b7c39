"""Spec of the tools step: programs that come along in the store instead of from the host."""

from __future__ import annotations

from typing import ClassVar

from umlbuild.specs.model import Spec


class ToolsSpec(Spec):
    """The tools stage. Input `packages` (an entry with `pool/*.deb`: the programs' packages and all they
    depend on, the C library too). Output: `tree/`, a usr-merged tree to run them from.
    """

    STAGE: ClassVar[str] = "tools"

    programs: tuple[str, ...]
    """Names (`mke2fs`) that must be in usr/sbin or usr/bin of the tree with all their libraries. Sorted."""
    libraries: tuple[str, ...] = ()
    """Libraries that are loaded by name (dlopen, `ImageSpec.preload`) and must be in the tree. Sorted."""
