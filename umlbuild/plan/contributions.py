"""What all kinds of a recipe contribute together: packages, Kconfig symbols with their reasons, entries. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.inits.base import Guest
from umlbuild.recipe import Recipe
from umlbuild.recipe.managers import manager_of


def contributions_of(recipe: Recipe) -> Iterator[tuple[str, Contribution]]:
    """(what in the recipe, contribution), in the order in which they are merged."""
    root = recipe.rootfs
    yield "every machine", Contribution(kconfig=symbols.BASE, optional_kconfig=symbols.BASE_OPTIONAL)
    yield f"image.kind = {recipe.image.kind}", recipe.image.contribute()
    for number, disk in enumerate(recipe.disk):
        yield f"disk[{number}]", disk.contribute()
    yield f"rootfs.init = {root.init.kind}", root.init.contribute(guest_of(recipe))
    if recipe.network:
        yield "network", Contribution(kconfig=symbols.NETWORK, optional_kconfig=symbols.NETWORK_OPTIONAL)
    if any(net.address6 != "none" for net in recipe.network):
        yield "network: address6", Contribution(kconfig=symbols.IPV6)
    if recipe.share:
        yield "share", Contribution(kconfig=symbols.HOSTFS)
    yield "kernel.modules", Contribution(kconfig=_module_support(recipe))
    loads = has_modules(recipe)
    for name, item in recipe.hardening.on(has_modules=loads).items():
        yield f"hardening.{name}", Contribution(kconfig=item.kconfig, optional_kconfig=item.optional_kconfig)
    if (sysctls := recipe.hardening.entry(has_modules=loads)) is not None:
        yield "hardening", Contribution(entries=(sysctls,))
    if recipe.launch.cpus > 1:
        yield "launch.cpus", Contribution(kconfig={"SMP": "y", "NR_CPUS": str(max(2, recipe.launch.cpus))})
    if root.timezone != "Etc/UTC":
        yield "rootfs.timezone", Contribution(packages=("tzdata",))
    if root.locale != "C.UTF-8":
        yield "rootfs.locale", Contribution(packages=("locales",))


def guest_of(recipe: Recipe) -> Guest:
    """What the init is told."""
    root = recipe.rootfs
    return Guest(
        modules=recipe.kernel.modules,
        lock_modules=recipe.kernel.lock_modules,
        autologin=root.autologin,
        manager=manager_of(recipe),
        has_dhcp=any(net.address == "dhcp" for net in recipe.network),
        has_resolved_package=root.suite not in ("buster", "bullseye"),
        is_bare=root.bootstrap.kind == "extract",
        has_modules=has_modules(recipe),
    )


def packages_of(recipe: Recipe) -> tuple[str, ...]:
    """All packages that the root gets by name, sorted."""
    return tuple(sorted({*recipe.rootfs.packages, *base_packages_of(recipe)}))


def base_packages_of(recipe: Recipe) -> tuple[str, ...]:
    """The packages that follow from the recipe without being named in it (the init's, for example), sorted."""
    return tuple(sorted({name for _, contribution in contributions_of(recipe) for name in contribution.packages}))


def has_modules(recipe: Recipe) -> bool:
    """Whether the kernel may come with modules: then the root file system is given them."""
    return _module_support(recipe).get("MODULES") != "n"


def _module_support(recipe: Recipe) -> dict[str, str]:
    """Module support is on if the recipe names a module, off if nothing of the user's can need it.

    What cannot be loaded cannot be abused. With fragments or another base than tinyconfig, they decide.
    """
    kernel = recipe.kernel
    if "MODULES" in kernel.options or kernel.source.kind == "prebuilt":
        return {}
    if kernel.modules or "m" in kernel.options.values():
        return {"MODULES": "y", "MODULE_UNLOAD": "y"}
    if kernel.config or kernel.base != "tinyconfig":
        return {}
    return {"MODULES": "n"}
