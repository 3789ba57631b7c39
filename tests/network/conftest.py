"""What the tests of networks share."""

from __future__ import annotations

from pathlib import Path

import bundles
import pytest


@pytest.fixture(scope="session")
def jail() -> Path:
    """The launcher's helper."""
    return bundles.jail()
