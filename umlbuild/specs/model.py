"""The base of all specs and kinds: frozen, strict pydantic models."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Frozen data; an unknown key is an error, and no value is silently converted."""

    # No use_attribute_docstrings: reading sources costs every start 80 ms. `umlbuild.reference` reads them.
    # defer_build: most models are only parts of others, with no need of a validator: 5 % of a no-op build.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Spec(Model):
    """All that one step is told."""

    STAGE: ClassVar[str]
    """The stage that obeys it: module `umlbuild.stages.<STAGE>`, directory `cache/<STAGE>/`."""
    VERSION: ClassVar[int] = 1
    """Rises when the same spec would give other bytes."""
