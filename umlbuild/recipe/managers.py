"""Who brings the guest's interfaces up, as the recipe decides it. Pure."""

from __future__ import annotations

from umlbuild.kinds.inits.base import Manager
from umlbuild.recipe import Recipe


def manager_of(recipe: Recipe) -> Manager | None:
    """networkd with systemd, unless the recipe has ifupdown; busybox in bare roots; ifupdown elsewhere."""
    if not recipe.network:
        return None
    root = recipe.rootfs
    if root.bootstrap.kind == "extract":
        return "busybox"
    if root.init.kind == "systemd" and "ifupdown" not in root.packages:
        return "networkd"
    return "ifupdown"


def files_of(recipe: Recipe) -> list[str]:
    """The files of the guest that this one reads."""
    if manager_of(recipe) == "networkd":
        return [f"/etc/systemd/network/10-vec{number}.network" for number in range(len(recipe.network))]
    return ["/etc/network/interfaces"] if recipe.network else []
