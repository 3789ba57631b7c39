"""The ground: the root that declared files, users and services are put on. What was installed, without what the recipe
removes, with the kernel's modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from umlbuild.errors import StepFailed
from umlbuild.host import tarball
from umlbuild.host.tree import Tree

ROOT_TAR = "rootfs.tar"
MODULES_TAR = "modules.tar"


def of(installed: Path, remove: Sequence[str], modules: Path | None, note: Callable[[str], None]) -> Tree:
    """The ground of an `installed` root's entry and a kernel's, None without modules.

    Raises: StepFailed for a pattern that removes everything, or an archive that is none.
    """
    tree = Tree.of(installed / ROOT_TAR)
    gone: list[str] = []
    for pattern in remove:
        found = tree.matching(pattern)
        if "" in found:
            raise StepFailed(f"removing {pattern}: that is the whole root", "name what is to go")
        if not found:
            note(f"nothing to remove at {pattern}")
        gone += [f"/{path}" for path in found]
    tree.remove(*gone)
    if modules is not None:
        tree.merge(tarball.read(modules / MODULES_TAR))
    return tree
