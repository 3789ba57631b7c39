"""Spec of the helper step: the one compiled program that a bundle's launcher may need."""

from __future__ import annotations

from typing import ClassVar

from umlbuild.specs.model import Spec


class HelperSpec(Spec):
    """The helper stage. No inputs. Output: `jail` (0755), static and stripped: it needs nothing of its host."""

    STAGE: ClassVar[str] = "helper"

    sources: tuple[tuple[str, str], ...]
    """(name, text) of the C files and headers, sorted."""
    flags: tuple[str, ...]
    """What the compiler is told."""
