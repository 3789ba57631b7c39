"""Combinations that cannot work, found before any work: each as `key.path: what is wrong`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from umlbuild.kconfig import spelled
from umlbuild.kinds.images.readonly import ReadOnlyKind
from umlbuild.kinds.size import bytes_of
from umlbuild.recipe import Recipe, filter_checks, managers, network_checks

MINIMUM_MEMORY = 32 << 20
"""UML boots Debian's shell with 16 MiB; below 32 MiB nothing useful runs (uml-facts 1.3)."""

_CMDLINE_OURS = ("ubd", "con", "ssl", "mem=", "umid=", "uml_dir=", "root=", "init=", "vec", "hostfs=",
                 "mconsole=", "seccomp=", "ncpus=")  # fmt: skip
"""Parameters that other fields of the recipe or the launcher set."""


def problems(recipe: Recipe) -> list[str]:
    """All of them, in the order of the recipe; [] for a recipe that can be built."""
    return [
        *_kernel(recipe),
        *_rootfs(recipe),
        *_paths(recipe),
        *_disks(recipe),
        *network_checks.problems(recipe),
        *filter_checks.problems(recipe),
        *_shares(recipe),
        *_launch(recipe),
        *_sandbox(recipe),
        *_hardening(recipe),
    ]


def _kernel(recipe: Recipe) -> Iterator[str]:
    kernel = recipe.kernel
    if kernel.source.kind == "prebuilt":
        for name in ("config", "options", "patches"):
            if getattr(kernel, name):
                yield f"kernel.{name}: a prebuilt kernel cannot be configured or patched; use another source"
        if kernel.base != "tinyconfig":
            yield "kernel.base: a prebuilt kernel has its configuration already"
    if kernel.modules and kernel.options.get("MODULES") in (False, "n"):
        yield "kernel.modules: modules are asked for, but kernel.options.MODULES is off"
    for name in kernel.options:
        if name.startswith("CONFIG_"):
            yield f"kernel.options.{name}: symbols are written without CONFIG_ ({name[7:]})"
    yield from _twice("kernel.modules", kernel.modules)


def _rootfs(recipe: Recipe) -> Iterator[str]:
    root = recipe.rootfs
    yield from _twice("rootfs.packages", root.packages)
    yield from _twice("rootfs.users: name", [user.name for user in root.users])
    yield from _twice("rootfs.users: uid", [user.uid for user in root.users if user.uid is not None])
    for number, user in enumerate(root.users):
        at = f"rootfs.users[{number}]"
        given = [n for n in ("password_hash", "password_file", "password_env") if getattr(user, n) is not None]
        if len(given) > 1:
            yield f"{at}: {' and '.join(given)}: only one of them can be given"
        if user.name == "root" and (user.uid is not None or user.home is not None):
            yield f"{at}: root's uid and home are fixed"
        if any("\n" in key for key in user.ssh_keys):
            yield f"{at}.ssh_keys: each key is one line"
    known = {"root", *(user.name for user in root.users)}
    if root.autologin is not None and root.autologin not in known:
        yield f"rootfs.autologin: there is no user {root.autologin!r} in rootfs.users"
    if root.init.kind in ("busybox", "script"):
        for name in ("enable", "disable"):
            if getattr(root.services, name):
                yield f"rootfs.services.{name}: init = {root.init.kind!r} has no services"
    if root.init.kind == "script" and root.autologin is not None:
        yield "rootfs.autologin: init = \"script\" has no login"
    if root.bootstrap.kind == "extract":
        if root.init.kind not in ("busybox", "script"):
            yield (
                f"rootfs.bootstrap: extract configures no packages, so init = {root.init.kind!r} cannot run; "
                "use busybox or script"
            )
        if root.variant != "minbase":
            yield "rootfs.variant: extract takes only the packages that are named"
        if root.locale != "C.UTF-8":
            yield "rootfs.locale: extract has no locales to generate"
    for number, script in enumerate(root.run):
        if (script.content is None) == (script.source is None):
            yield f"rootfs.run[{number}]: needs either content or source"
    for number, file in enumerate(root.files):
        if (file.content is None) == (file.source is None):
            yield f"rootfs.files[{number}]: needs either content or source"


def _paths(recipe: Recipe) -> Iterator[str]:
    """Two users of one path, and paths that are made from other fields."""
    root = recipe.rootfs
    owners: dict[str, str] = {
        "/etc/fstab": "disks, tmpfs and image",
        "/etc/hostname": "rootfs.hostname",
        "/etc/hosts": "rootfs.hosts",
        "/etc/localtime": "rootfs.timezone",
        **dict.fromkeys(managers.files_of(recipe), "network"),
    }
    for field in ("files", "directories", "symlinks"):
        for number, item in enumerate(getattr(root, field)):
            at = f"rootfs.{field}[{number}]"
            if item.path in owners:
                yield f"{at}.path: {item.path} is made by {owners[item.path]} already"
            owners.setdefault(item.path, at)
    mounts: dict[str, str] = {"/": "image"}
    for number, tmpfs in enumerate(root.tmpfs):
        yield from _claim(mounts, tmpfs.path, f"rootfs.tmpfs[{number}].path")
    for number, disk in enumerate(recipe.disk):
        if disk.mount is not None:
            yield from _claim(mounts, disk.mount, f"disk[{number}].mount")
    for number, share in enumerate(recipe.share):
        yield from _claim(mounts, share.guest, f"share[{number}].guest")


def _disks(recipe: Recipe) -> Iterator[str]:
    most = 14 - (isinstance(recipe.image, ReadOnlyKind) and recipe.image.overlay == "disk")
    if len(recipe.disk) > most:
        yield f"disk: {len(recipe.disk)} disks; {most} are possible (ubda is the root's, ubdp the host's)"


def _shares(recipe: Recipe) -> Iterator[str]:
    if recipe.share and not recipe.launch.sandbox.CONFINES:
        yield (
            "share: needs a sandbox: without one the guest reaches the whole host through it "
            "(mount -o /..); use launch.sandbox = \"bwrap\""
        )
    if recipe.share and recipe.kernel.options.get("HOSTFS") in (False, "n"):
        yield "share: kernel.options.HOSTFS is off"


def _launch(recipe: Recipe) -> Iterator[str]:
    if bytes_of(recipe.launch.memory) < MINIMUM_MEMORY:
        yield f"launch.memory: {recipe.launch.memory} is too little; a guest needs 32M at least"
    yield from _trust(recipe)
    for word in recipe.launch.cmdline:
        if word == "--":
            yield "launch.cmdline: arguments of init do not belong here (use init = { kind = \"script\" … })"
        for ours in _CMDLINE_OURS:
            if word.startswith(ours):
                yield f"launch.cmdline: {word!r}: {ours.rstrip('=')} is set by other fields of the recipe"


SECCOMP = (6, 16)
"""The first kernel with `seccomp=`. Absent in 6.12, there in 7.2 (arch/um/os-Linux/start_up.c)."""


def _trust(recipe: Recipe) -> Iterator[str]:
    """What needs UML's `seccomp` mode, and what that needs."""
    launch, source = recipe.launch, recipe.kernel.source
    version = source.version_of()
    if launch.cpus > 1 and not launch.trust_userspace:
        yield (
            "launch.cpus: several CPUs need launch.trust_userspace = true: "
            "the guest's programs can then reach all of the guest's memory"
        )
    if launch.trust_userspace and version is not None and version < SECCOMP:
        yield "launch.trust_userspace: this kernel runs programs by ptrace only; use one from 7.0 on"
    if launch.cpus > 1 and source.kind == "prebuilt":
        yield "launch.cpus: the distribution's kernels know one CPU; build one from source"
    if recipe.launch.pin and len(set(launch.pin)) != len(launch.pin):
        yield "launch.pin: a CPU is there twice"
    if any(not 0 <= cpu <= 4095 for cpu in launch.pin):
        yield "launch.pin: CPUs have numbers from 0"


def _sandbox(recipe: Recipe) -> Iterator[str]:
    """What a sandbox lets no machine have."""
    sandbox = recipe.launch.sandbox
    for number, net in enumerate(recipe.network):
        if net.transport.sockets != "none" and not sandbox.SOCKETS:
            yield (
                f"network[{number}].transport: {net.transport.kind} opens a socket, which launch.sandbox = "
                f"{sandbox.kind!r} does not let it; use fd or tap, or launch.sandbox = \"bwrap\""
            )


def _hardening(recipe: Recipe) -> Iterator[str]:
    """What the profile forbids must be allowed by its name."""
    for name, item in recipe.hardening.on(has_modules=True).items():
        for symbol, value in (*item.kconfig.items(), *item.optional_kconfig.items()):
            asked = recipe.kernel.options.get(symbol)
            if asked is not None and spelled(asked) != value:
                yield f"kernel.options.{symbol}: hardening.{name} is on; say hardening.{name} = false, too"


def _claim(mounts: dict[str, str], path: str, at: str) -> Iterator[str]:
    if path in mounts:
        yield f"{at}: {path} is the mount point of {mounts[path]} already"
    mounts.setdefault(path, at)


def _twice(at: str, values: Iterable[object]) -> Iterator[str]:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            yield f"{at}: {value!r} is there twice"
        seen.add(value)
