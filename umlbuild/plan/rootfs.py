"""The steps of the root file system: packages, base, packages over it, configuration. Pure.

The base is the variant with what the init and the like bring along, without the packages that the recipe names: it is
shared by recipes and stays when a package is added. There is no other way to the whole root than over the base: a build
from nothing makes the same layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umlbuild.lock import Lock
from umlbuild.plan import guest
from umlbuild.plan.contributions import contributions_of, has_modules, packages_of
from umlbuild.plan.inputs import Files, Identity
from umlbuild.plan.kernel import ARCHITECTURE
from umlbuild.plan.step import Step
from umlbuild.recipe import Recipe
from umlbuild.recipe.rootfs import User as DeclaredUser
from umlbuild.specs.packages import LockedDeb, PackagesSpec
from umlbuild.specs.rootfs import ConfigureSpec, Entry, Method, RootfsSpec, Script, User

TRIMMED = {
    "docs": ("/usr/share/doc/*", "/usr/share/doc-base/*", "/usr/share/info/*", "/usr/share/lintian/*"),
    "man": ("/usr/share/man/*", "/usr/share/groff/*"),
    "locales": ("/usr/share/locale/*",),
}
"""What each word of `rootfs.trim` removes."""


@dataclass(frozen=True)
class Root:
    """The root file system of a recipe, as far as steps make it."""

    installed: Step
    """The step that installs the packages."""
    modules: Mapping[str, Step]
    """The kernel's step as an input, if it comes with modules."""
    spec: ConfigureSpec
    """What is declared."""
    sources: Mapping[str, Path]
    """The user's files that it puts there."""
    label: str

    def configured(self, *, whole: bool) -> Step:
        """The step whose entry has the finished `rootfs.tar`; or only what changes in what is installed."""
        spec = self.spec.model_copy(update={"whole": whole})
        return Step(spec, self.label, {"rootfs": self.installed, **self.modules}, sources=self.sources)


def root_of(recipe: Recipe, lock: Lock, files: Files, identity: Identity, kernel: Step) -> Root:
    """The root file system of a recipe."""
    return Root(
        installed=_installed_step(recipe, lock, identity),
        modules={"modules": kernel} if has_modules(recipe) else {},
        spec=_configure_spec(recipe, files),
        sources=files.paths,
        label=f"configuration of {recipe.name}",
    )


def _installed_step(recipe: Recipe, lock: Lock, identity: Identity) -> Step:
    """The step that installs the packages: the base and a layer over it, or all of them at once.

    At once where the bootstrapper knows no layers, where the lock marks no base, and where nothing is over it.
    """
    root = recipe.rootfs
    kind = root.bootstrap.kind
    bare = kind == "extract"
    variant = "extract" if bare else root.variant
    tools = () if bare else (identity(kind),)

    def step(label: str, method: Method, pins: Sequence[LockedDeb], include: Sequence[str], base: Step | None) -> Step:
        packages = Step(
            PackagesSpec(suite=root.suite, architecture=ARCHITECTURE, pins=tuple(pins)),
            f"{len(pins)} packages of {root.suite}{'' if include else ' (base)'}",
        )
        spec = RootfsSpec(
            bootstrap=kind, method=method, suite=root.suite, architecture=ARCHITECTURE, variant=variant,
            include=tuple(include),
        )  # fmt: skip
        return Step(spec, label, {"packages": packages, **({"base": base} if base else {})}, tools=tools)

    method = root.bootstrap.method(root.suite, ARCHITECTURE)
    layer = root.bootstrap.layer(root.suite, ARCHITECTURE)
    below = [pin for pin in lock.rootfs if pin.base]
    above = [pin for pin in lock.rootfs if not pin.base]
    whole = f"root file system of {root.suite}"
    if above and (layer is None or not below):
        return step(f"{whole} ({kind}, all at once)", method, lock.rootfs, packages_of(recipe), None)
    base = step(f"base of {root.suite} ({variant}, {kind})", method, below, (), None)
    if layer is None or not above:
        return base
    return step(f"{whole} (over its base)", layer, above, packages_of(recipe), base)


def _configure_spec(recipe: Recipe, files: Files) -> ConfigureSpec:
    root = recipe.rootfs
    entries = [entry for _, c in contributions_of(recipe) for entry in c.entries]
    entries += guest.entries_of(recipe)
    entries += _declared(recipe, files)
    enable = [name for _, c in contributions_of(recipe) for name in c.enable]
    disable = [name for _, c in contributions_of(recipe) for name in c.disable]
    return ConfigureSpec(
        entries=tuple(entries),
        remove=tuple(p for word in root.trim for p in TRIMMED[word]) + root.remove,
        users=tuple(_user(user, files, n) for n, user in enumerate(root.users)),
        scripts=(*_locale_script(recipe), *_scripts(recipe, files)),
        enable=(*enable, *root.services.enable),
        disable=(*disable, *root.services.disable),
        init=root.init.kind,
    )


def _declared(recipe: Recipe, files: Files) -> list[Entry]:
    """The recipe's own directories, files and symlinks."""
    root = recipe.rootfs
    entries = [
        Entry(path=d.path, type="dir", mode=int(d.mode, 8), user=d.user, group=d.group)
        for d in root.directories
    ]  # fmt: skip
    for number, file in enumerate(root.files):
        source = None
        if file.source is not None:
            source = files.digest(file.source, f"rootfs.files[{number}].source")
        entries.append(
            Entry(
                path=file.path, content=file.content, source=source, mode=int(file.mode, 8),
                user=file.user, group=file.group,
            )
        )  # fmt: skip
    entries += [Entry(path=s.path, type="symlink", target=s.target) for s in root.symlinks]
    return entries


def _user(user: DeclaredUser, files: Files, number: int) -> User:
    """The account with its hash, wherever the recipe keeps it; locked without one."""
    at = f"rootfs.users[{number}]"
    given = user.password_hash
    if user.password_file is not None:
        given = files.text(user.password_file, f"{at}.password_file", secret=True).strip()
    elif user.password_env is not None:
        given = files.secret(user.password_env, f"{at}.password_env").strip()
    if given and not given.startswith("$"):
        name = "password_file" if user.password_file else "password_env"
        files.problems.append(
            f"{files.file}: {at}.{name}: what it holds is no hash of crypt(5) (like $y$…; `mkpasswd` makes one)"
        )
    return User(
        name=user.name,
        uid=user.uid,
        groups=user.groups,
        shell=user.shell,
        home=user.home,
        password_hash=given or "!",
        ssh_keys=user.ssh_keys,
    )


def _locale_script(recipe: Recipe) -> tuple[Script, ...]:
    """The generation of a locale that is not built into the C library."""
    locale = recipe.rootfs.locale
    if locale == "C.UTF-8":
        return ()
    name, _, charset = locale.partition(".")
    language, at, modifier = name.partition("@")
    charset = charset or "UTF-8"
    return (
        Script(content=f"#!/bin/sh\nexec localedef -i {language}{at}{modifier} -f {charset} {locale}\n"),
    )


def _scripts(recipe: Recipe, files: Files) -> list[Script]:
    scripts = []
    for number, script in enumerate(recipe.rootfs.run):
        text = script.content
        if text is None:
            assert script.source is not None
            text = files.text(script.source, f"rootfs.run[{number}].source")
        scripts.append(Script(content=text, network=script.network))
    return scripts
