"""The steps of the kernel: its package, source, configuration and build. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from umlbuild import kconfig
from umlbuild.errors import LockError, RecipeError
from umlbuild.kinds.kernels.prebuilt import COMPILER
from umlbuild.lock import Lock
from umlbuild.plan.contributions import contributions_of
from umlbuild.plan.inputs import Files, Identity
from umlbuild.plan.step import Step
from umlbuild.recipe import Recipe
from umlbuild.specs.kernel import KernelConfigSpec, KernelSourceSpec, KernelSpec, PrebuiltKernelSpec
from umlbuild.specs.packages import PackagesSpec

ARCHITECTURE = "amd64"
"""UML runs on the architecture of its host; only x86-64 is supported so far."""

COMPILERS = ("gcc", "ld")
"""Programs whose version shapes a kernel's configuration and bytes."""

GONE = {"UML_NET": (7, 0)}
"""Optional symbols, and a version from which on no kernel knows them: not asked for there, so that machines with and
without a network can have the same kernel. Source: removed between 6.12 and 7.2 (arch/um/drivers/Kconfig)."""

LIBRARIES = ("ldd", "libgcc_s.so.1")
"""What is linked into a kernel or put beside it: ldd's version is the C library's."""


@dataclass(frozen=True)
class Request:
    """One Kconfig symbol that somebody wants."""

    symbol: str
    value: str
    origin: str
    """What in the recipe wants it."""
    optional: bool = False


def kernel_step(recipe: Recipe, lock: Lock, files: Files, identity: Identity) -> Step:
    """The step whose entry has `linux`, `config`, `release` and `modules.tar`."""
    source = recipe.kernel.source
    packages = _package_step(lock) if source.wanted(recipe.rootfs.suite) else None
    if source.kind == "prebuilt":
        assert packages is not None
        wanted = recipe.image.contribute().kconfig
        built_in = tuple(sorted(symbol for symbol, value in wanted.items() if value == "y"))
        kernel, *others = lock.kernel
        compiler = next((pin for pin in others if pin.name == COMPILER), None)
        if compiler is None:
            raise LockError(f"the lock names no {COMPILER} for the kernel", "remove the lock and build again")
        libraries = tuple(pin for pin in others if pin is not compiler)
        spec = PrebuiltKernelSpec(
            pin=kernel, libraries=libraries, compiler=compiler, xstate=xstate_source(), built_in=built_in
        )
        return Step(spec, f"kernel {lock.kernel[0].version} (prebuilt)", {"packages": packages})
    tree, source_step = _source_steps(recipe, lock, files, packages)
    inputs = {"source": source_step} if source_step else {}
    # The configuration names its compiler (CC_VERSION_TEXT) and depends on what that one can do.
    compilers = tuple(identity(program) for program in COMPILERS)
    version = source.version_of(lock.kernel[0] if lock.kernel else None)
    config_spec = _config_spec(recipe, files, tree, version)
    config = Step(config_spec, "kernel configuration", inputs, tools=compilers, sources=files.paths)
    return Step(
        KernelSpec(tree=tree, xstate=xstate_source()),
        f"kernel {_version_text(lock)}".rstrip(),
        {**inputs, "config": config},
        tools=(*compilers, *(identity(name) for name in LIBRARIES)),
        sources=files.paths,
    )


def requests_of(recipe: Recipe, files: Files) -> list[Request]:
    """Every wanted symbol with its origin: contributions, then fragments, then options; the last one counts."""
    found: dict[str, Request] = {}

    def want(values: Iterable[tuple[str, str]], origin: str, *, optional: bool = False) -> None:
        for symbol, value in values:
            found[symbol] = Request(symbol, value, origin, optional)

    for origin, contribution in contributions_of(recipe):
        want(contribution.kconfig.items(), origin)
        want(contribution.optional_kconfig.items(), origin, optional=True)
    for number, name in enumerate(recipe.kernel.config):
        at = f"kernel.config[{number}]"
        want(kconfig.parse(files.text(name, at), name).items(), name)
    options = recipe.kernel.options
    want(((s, kconfig.spelled(v)) for s, v in options.items()), "kernel.options")
    return sorted(found.values(), key=lambda request: request.symbol)


def xstate_source() -> str:
    """The library that dynamic kernels are started with, in C."""
    return (resources.files("umlbuild.launcher") / "xstate.c").read_text()


def _package_step(lock: Lock) -> Step:
    if not lock.kernel:
        raise LockError("the lock names no kernel package", "remove the lock and build again")
    pins = tuple(sorted(lock.kernel, key=lambda pin: pin.name))
    spec = PackagesSpec(suite=None, architecture=ARCHITECTURE, pins=pins)
    return Step(spec, f"package {lock.kernel[0].name} {lock.kernel[0].version}")


def _source_steps(
    recipe: Recipe, lock: Lock, files: Files, packages: Step | None
) -> tuple[str | None, Step | None]:
    """(digest of a user's tree that is used in place, the kernel-source step): one of them is None."""
    source = recipe.kernel.source
    patches = tuple(
        files.digest(name, f"kernel.patches[{number}]") for number, name in enumerate(recipe.kernel.patches)
    )
    tree = files.tree(source.path, "kernel.source.path") if source.kind == "tree" else None
    if tree is not None and not patches:
        return tree, None
    spec = KernelSourceSpec(source=source.source(lock.kernel[0] if packages else None, tree), patches=patches)
    hidden = frozenset({"source.url"} if source.kind == "tarball" else ())
    step = Step(
        spec,
        f"kernel source {_version_text(lock)}".rstrip(),
        {"packages": packages} if packages else {},
        sources=files.paths,
        not_in_key=hidden,
    )
    return None, step


def _config_spec(
    recipe: Recipe, files: Files, tree: str | None, version: tuple[int, int] | None
) -> KernelConfigSpec:
    base = recipe.kernel.base
    named = base in ("defconfig", "tinyconfig")
    requests = requests_of(recipe, files)
    if recipe.kernel.modules and {r.symbol: r.value for r in requests}.get("MODULES") != "y":
        raise RecipeError(
            [f"{files.file}: kernel.modules: modules are asked for, but a fragment switches MODULES off"]
        )
    return KernelConfigSpec(
        tree=tree,
        base=base if named else "file",  # type: ignore[arg-type]  # narrowed by `named`
        base_file=None if named else files.digest(base, "kernel.base"),
        symbols=tuple((r.symbol, r.value) for r in requests if not r.optional),
        optional_symbols=tuple(
            (r.symbol, r.value)
            for r in requests
            if r.optional and (version is None or version < GONE.get(r.symbol, (99, 0)))
        ),
    )


def _version_text(lock: Lock) -> str:
    return lock.kernel[0].version if lock.kernel else ""
