"""The step of the launcher's helper, which is only made for recipes that need it. Pure."""

from __future__ import annotations

from importlib import resources

from umlbuild.plan.inputs import Identity
from umlbuild.plan.step import Step
from umlbuild.recipe import Recipe
from umlbuild.specs.helper import HelperSpec

FLAGS = ("-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-fstack-protector-strong",
         "-D_FORTIFY_SOURCE=2", "-Wl,--build-id=none")  # fmt: skip
TOOLS = ("gcc", "ld", "ldd")
"""Programs whose version shapes its bytes; ldd's is the C library's."""


def helper_steps(recipe: Recipe, identity: Identity) -> dict[str, Step]:
    """The bundle's input `helper` if something of the recipe needs it; else nothing, and no compiler is asked for."""
    frames = any(net.transport.packet_interface or net.transport.kind == "user" for net in recipe.network)
    if not (recipe.launch.sandbox.HELPER or frames):
        return {}
    return {"helper": helper_step(identity)}


def helper_step(identity: Identity) -> Step:
    """The step whose entry has it."""
    spec = HelperSpec(sources=sources(), flags=FLAGS)
    return Step(spec, "launcher's helper", tools=tuple(identity(program) for program in TOOLS))


def sources() -> tuple[tuple[str, str], ...]:
    """(name, text) of the helper's files."""
    files = (resources.files("umlbuild.launcher") / "helper").iterdir()
    return tuple(sorted((file.name, file.read_text()) for file in files if file.name.endswith((".c", ".h"))))
