"""What a recipe asks of Debian's archives; the answers are the lock. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from umlbuild.lock import Tarball, Wishes
from umlbuild.plan.contributions import base_packages_of, packages_of
from umlbuild.plan.filters import wanted
from umlbuild.recipe import Recipe

TOOLS_SUITE = "trixie"
"""Where the programs that write images come from, on every host: their version shapes the bytes."""


def wishes_of(recipe: Recipe) -> Wishes:
    """What must be resolved before this recipe can be planned."""
    root = recipe.rootfs
    source = recipe.kernel.source
    tarball = None
    if source.kind == "tarball":
        tarball = Tarball(file=urlsplit(source.url).path.rsplit("/", 1)[-1], sha256=source.sha256)
    tools = {*recipe.image.tools, *(name for disk in recipe.disk for name in disk.tools)}
    return Wishes(
        suite=root.suite,
        components=root.components,
        variant="none" if root.bootstrap.kind == "extract" else root.variant,
        packages=packages_of(recipe),
        base=None if root.bootstrap.kind == "extract" else base_packages_of(recipe),
        kernel=source.wanted(root.suite),
        tarball=tarball,
        tools_suite=TOOLS_SUITE,
        tools=tuple(sorted(tools)),
        filters=wanted(recipe),
    )
