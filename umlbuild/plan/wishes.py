"""What a recipe asks of Debian's archives; the answers are the lock. Pure."""

from __future__ import annotations

from umlbuild import digest
from umlbuild.kinds.kernels.wish import PackageWish
from umlbuild.plan.contributions import packages_of
from umlbuild.plan.filters import wanted
from umlbuild.recipe import Recipe
from umlbuild.specs.model import Model

TOOLS_SUITE = "trixie"
"""Where the programs that write images come from, on every host: their version shapes the bytes."""


class Wishes(Model):
    """The questions of one recipe."""

    suite: str
    components: tuple[str, ...]
    variant: str
    """"none" for a root of only the named packages, without what they depend on."""
    packages: tuple[str, ...]
    """Sorted."""
    mirror: str | None
    kernel: PackageWish | None
    """A kernel that comes from a package, and its libraries."""
    tools_suite: str = TOOLS_SUITE
    tools: tuple[str, ...]
    """Packages of the programs that write the images."""
    filters: tuple[str, ...] | None = None
    """Packages of the programs that compile packet filters, from the same suite."""

    def asked(self) -> str:
        """The digest that a lock remembers; the mirror is no part of it."""
        return digest.of_json(self.questions())

    def questions(self) -> dict[str, object]:
        """All that changes the answers, as JSON data."""
        return self.model_dump(mode="json", exclude={"mirror"}, exclude_none=True)


def wishes_of(recipe: Recipe) -> Wishes:
    """What must be resolved before this recipe can be planned."""
    root = recipe.rootfs
    tools = {*recipe.image.tools, *(name for disk in recipe.disk for name in disk.tools)}
    return Wishes(
        suite=root.suite,
        components=root.components,
        variant="none" if root.bootstrap.kind == "extract" else root.variant,
        packages=packages_of(recipe),
        mirror=root.mirror,
        kernel=recipe.kernel.source.wanted(root.suite),
        tools=tuple(sorted(tools)),
        filters=wanted(recipe),
    )
