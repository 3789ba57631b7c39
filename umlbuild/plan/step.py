"""Steps and their keys.

A key is the sha256 of {stage, VERSION, spec, keys of the inputs, identities of the tools that shape the
bytes}. The spec is dumped with its defaults and without None, so a new optional field changes no key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from umlbuild import digest
from umlbuild.digest import Key
from umlbuild.specs.model import Spec


@dataclass(frozen=True)
class Step:
    """One thing to make: what, from which other steps, with which tools."""

    spec: Spec
    label: str
    """For people, e.g. "kernel 7.3.4"; not in the key."""
    inputs: Mapping[str, Step] = field(default_factory=dict)
    """Role → the step that is read under that name."""
    tools: tuple[str, ...] = ()
    """Identities of host programs that shape the bytes, e.g. "gcc (Debian 12.2.0-14) 12.2.0"."""
    sources: Mapping[str, Path] = field(default_factory=dict)
    """Digest → where that file or tree of the user's is; not in the key."""
    not_in_key: frozenset[str] = frozenset()
    """Dotted fields of the spec that do not shape the bytes (a download's URL)."""

    @property
    def stage(self) -> str:
        """The stage that makes it."""
        return self.spec.STAGE

    @cached_property
    def key(self) -> Key:
        """The name of its entry in the store."""
        return Key(digest.of_json(self.identity()))

    def identity(self) -> dict[str, object]:
        """What the key is the digest of."""
        spec = self.spec.model_dump(mode="json", exclude_none=True)
        for dotted in self.not_in_key:
            *path, last = dotted.split(".")
            at = spec
            for name in path:
                at = at[name]
            at.pop(last, None)
        return {
            "stage": self.stage,
            "version": self.spec.VERSION,
            "spec": spec,
            "inputs": {role: step.key for role, step in self.inputs.items()},
            "tools": sorted(self.tools),
        }

    def walk(self) -> Iterator[Step]:
        """This step and all it stands on, inputs first, each key once."""
        seen: set[str] = set()

        def visit(step: Step) -> Iterator[Step]:
            if step.key in seen:
                return
            seen.add(step.key)
            for below in step.inputs.values():
                yield from visit(below)
            yield step

        yield from visit(self)
