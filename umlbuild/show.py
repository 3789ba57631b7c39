"""`umlbuild show`: what a recipe means. The effective recipe, its steps, and why the kernel has a symbol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from umlbuild import finding, project
from umlbuild.host.files import Files
from umlbuild.host.store import Store
from umlbuild.kinds.hardening import ITEMS
from umlbuild.kinds.transports import Transport
from umlbuild.kinds.transports.forward import parts_of
from umlbuild.kinds.transports.hybrid import Hybrid
from umlbuild.kinds.transports.raw import Raw
from umlbuild.kinds.transports.user import User
from umlbuild.plan.bundle import Plan, effective
from umlbuild.plan.contributions import has_modules
from umlbuild.plan.kernel import requests_of
from umlbuild.recipe import Recipe


def found(word: str, directory: Path) -> list[Path]:
    """The recipes that a word names. Raises: UserError."""
    return finding.find_recipes(word, directory)


def text_of(path: Path, directory: Path) -> str:
    """Everything that `show` prints of one recipe. Reads no network and builds nothing."""
    recipe = project.read_recipe(path)
    cache = project.cache_directory(directory)
    parts = [f"# {path.name}: effective recipe", effective(recipe)]
    if project.read_lock(path, recipe) is None:
        parts.append("# plan: not resolved yet; the first build writes the lock")
    else:
        plan = project.plan_recipe(path, resolve=False, note=lambda _text: None, cache=cache)
        parts.append("# plan: step, key, in the store or to build")
        parts.append("\n".join(_steps(plan, Store.at(cache))))
    parts.append("\n# security: what is not as safe as it could be")
    parts.append("\n".join(_weak(recipe)) or "nothing")
    if recipe.kernel.source.kind != "prebuilt":
        parts.append("\n# kernel: symbol, value, who wants it")
        parts.append("\n".join(_symbols(recipe, path)))
    return "\n".join(parts)


def _steps(plan: Plan, store: Store) -> Iterator[str]:
    for step in plan.bundle.walk():
        state = "in store" if store.has(step.stage, step.key) else "to build"
        yield f"{step.stage:<16} {step.key[:12]}  {state}  {step.label}"


def _weak(recipe: Recipe) -> Iterator[str]:
    """What the recipe switched off, and what its kernel cannot have."""
    on = recipe.hardening.on(has_modules=has_modules(recipe))
    for name, item in ITEMS.items():
        symbols = sorted({**item.kconfig, **item.optional_kconfig})
        if not getattr(recipe.hardening, name):
            yield f"hardening.{name} is off"
        elif name not in on:
            yield f"hardening.{name} does nothing: the kernel has modules"
        elif symbols and recipe.kernel.source.kind == "prebuilt":
            yield f"hardening.{name} sets no symbols: a prebuilt kernel keeps its own ({', '.join(symbols)})"
    if not recipe.kernel.lock_modules and has_modules(recipe):
        yield "kernel.lock_modules is off: guest root can load code into the UML process"
    if recipe.launch.trust_userspace:
        yield "launch.trust_userspace: every program in the guest can reach all of the guest's memory"
    if not recipe.launch.sandbox.CONFINES:
        yield "launch.sandbox = none: guest root can reach what the user can who starts the machine"
    elif not recipe.launch.sandbox.OWN_ROOT:
        yield f"launch.sandbox = {recipe.launch.sandbox.kind}: code in UML can see that files of the host exist (stat)"
    for number, net in enumerate(recipe.network):
        yield from (f"network[{number}]{text}" for text in _weak_network(net.transport))
    for share in recipe.share:
        if share.writable:
            yield f"share {share.guest}: the guest writes to {share.host}"


def _weak_network(transport: Transport) -> Iterator[str]:
    if transport.host_network:
        yield f": {transport.kind}: code in the UML process can use the host's network"
    if transport.capabilities:
        yield f": {transport.kind}: such code can also read and send any frame there (CAP_NET_RAW)"
    if isinstance(transport, Raw | Hybrid) and transport.allow_guest_bpf:
        yield ".transport.allow_guest_bpf: guest root can replace the filter of what it receives"
    if isinstance(transport, User):
        if transport.host_loopback:
            yield ".transport.host_loopback: the guest reaches what listens on the host's 127.0.0.1"
        for forward in transport.forward:
            if not parts_of(forward)[1].startswith("127."):
                yield f".transport.forward: {forward} is open to others than the host"


def _symbols(recipe: Recipe, path: Path) -> Iterator[str]:
    for request in requests_of(recipe, Files(path.parent.absolute(), path.name)):
        known = "  (if this kernel knows it)" if request.optional else ""
        yield f"{request.symbol:<28} {request.value:<12} {request.origin}{known}"
