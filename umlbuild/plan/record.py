"""What is remembered of a plan, so that the next one can be compared with it: its steps by slot. Pure.

A slot is where a step stands in its plan: "bundle", "bundle.image", "bundle.image.root". Keys change with every
edit, slots only when a recipe gets another kind of kernel, file system or filter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from umlbuild import digest

if TYPE_CHECKING:  # pydantic is slow to import, and telling the tasks needs none
    from umlbuild.plan.step import Step

_SECRET = "password_hash"


def slots(step: Step, name: str = "bundle") -> Iterator[tuple[str, Step]]:
    """Every slot below a step and itself, inputs first; a step that is read twice has two."""
    for role, below in step.inputs.items():
        yield from slots(below, f"{name}.{role}")
    yield name, step


def record_of(recipe: Path, bundle: Step, wishes: Mapping[str, object]) -> dict[str, object]:
    """The record of a recipe's plan; `wishes` is what its lock was asked."""
    sources = {name: str(path) for step in bundle.walk() for name, path in step.sources.items()}
    return {
        "plan": bundle.key,
        "recipe": str(recipe),
        "wishes": dict(wishes),
        "steps": {
            slot: {"stage": step.stage, "key": step.key, "label": step.label} for slot, step in slots(bundle)
        },
        "sources": sources,
    }


def told(identity: Mapping[str, object]) -> object:
    """What a key was made of, as it may be kept and shown: a password's hash only by its own digest."""
    return _without_secrets(dict(identity))


def _without_secrets(value: object) -> object:
    if isinstance(value, dict):
        return {
            name: f"(digest {digest.of_bytes(item.encode())[:12]})"
            if name == _SECRET and isinstance(item, str) and item != "!"
            else _without_secrets(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return value
