from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torturekit
from torturekit import Yard


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with torturekit.place() as path:
        yield path


@pytest.fixture(scope="module")
def small(room: Path) -> Yard:
    """The small recipe, not built yet."""
    (room / "recipe").mkdir()
    Yard(room / "recipe").be("calm")
    return torturekit.vendored(room / "recipe/small.toml", room / "small")
