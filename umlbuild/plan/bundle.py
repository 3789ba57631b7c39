"""The whole plan of a recipe: from its packages to its bundle. Pure and offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from umlbuild.errors import RecipeError
from umlbuild.kinds.sandboxes import seccomp
from umlbuild.kinds.transports.base import Sockets
from umlbuild.lock import Lock, text_of
from umlbuild.plan import cmdline, hostnet, machine
from umlbuild.plan.filters import filters_step
from umlbuild.plan.helper import helper_steps
from umlbuild.plan.image import disk_steps, image_step, tools_step
from umlbuild.plan.inputs import Files, Identity
from umlbuild.plan.kernel import kernel_step
from umlbuild.plan.rootfs import root_of
from umlbuild.plan.step import Step
from umlbuild.plan.wishes import wishes_of
from umlbuild.recipe import Recipe, network_checks
from umlbuild.specs.bundle import BundleSpec


@dataclass(frozen=True)
class Plan:
    """What there is to do for one recipe."""

    name: str
    """The recipe's."""
    recipe: Recipe
    recipe_path: Path
    bundle: Step
    """The last step; `bundle.walk()` gives all, inputs first."""
    parts: Mapping[str, Step]
    """ "kernel", "rootfs", "image", "bundle" → the last step of that part."""
    mirrors: Mapping[str, str]
    """Archive → base URL, for the steps that fetch."""
    wishes: Mapping[str, object]
    """What the lock was asked."""


def plan_of(
    recipe: Recipe,
    lock: Lock,
    files: Files,
    identity: Identity,
    *,
    path: Path,
    mirrors: Mapping[str, str],
) -> Plan:
    """The plan; what could not be read is in `files.problems` afterwards. Raises: RecipeError, LockError."""
    kernel = kernel_step(recipe, lock, files, identity)
    root = root_of(recipe, lock, files, identity, kernel)
    tools = tools_step(recipe, lock)
    image = image_step(recipe, root, tools, files)
    old = [*network_checks.too_old(recipe, recipe.kernel.source.version_of(lock.kernel[0] if lock.kernel else None))]
    if old:
        raise RecipeError([f"{files.file}: {problem}" for problem in old])
    words = cmdline.words_of(recipe, files.file)
    inputs = {"kernel": kernel, "image": image, **disk_steps(recipe, tools), **helper_steps(recipe, identity)}
    if (filters := filters_step(recipe, lock, files)) is not None:
        inputs["filters"] = filters
    spec = BundleSpec(
        name=recipe.name,
        launcher=machine.launcher_of(recipe, words),
        net=hostnet.script_of(recipe),
        filter=seccomp.program(
            sockets=_sockets(recipe), share=bool(recipe.share), strict=not recipe.launch.sandbox.SOCKETS
        ).hex(),
        runs_with=recipe.launch.sandbox.PROGRAMS,
        cmdline=" ".join(words),
        recipe=effective(recipe),
        lock=text_of(lock),
        sources=files.sources,
        built_with=_built_with(inputs.values()),
    )
    bundle = Step(spec, f"bundle {recipe.name}", inputs, sources=files.paths)
    parts = {"kernel": kernel, "rootfs": root.configured(whole=True), "image": image, "bundle": bundle}
    return Plan(recipe.name, recipe, path, bundle, parts, mirrors, wishes_of(recipe).questions())


def _built_with(inputs: Iterable[Step]) -> tuple[str, ...]:
    """The identities of all host programs, sorted."""
    return tuple(sorted({tool for last in inputs for step in last.walk() for tool in step.tools}))


def _sockets(recipe: Recipe) -> Sockets:
    """The most that any interface needs."""
    wanted = {net.transport.sockets for net in recipe.network}
    return "network" if "network" in wanted else "unix" if "unix" in wanted else "none"


def effective(recipe: Recipe) -> str:
    """The recipe as TOML with `extends` merged and all defaults, without password hashes and what changes no byte."""
    data = recipe.model_dump(mode="json", exclude_none=True, exclude={"build"})
    for user in data["rootfs"]["users"]:
        if "password_hash" in user:
            user["password_hash"] = "(not shown)"
    return tomli_w.dumps(_without_empty(data))


def _without_empty(value: Any) -> Any:
    """Data without empty lists and tables: they are defaults that say nothing."""
    if isinstance(value, dict):
        inner = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in inner.items() if item not in ({}, [])}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value
