"""What the tests of networks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlbuild.plan.helper import FLAGS, sources
from umlbuild.specs.helper import HelperSpec
from umlbuild.stages import helper
from umlbuild.stages.context import Context


@pytest.fixture(scope="session")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher's helper, made by its stage."""
    where = tmp_path_factory.mktemp("helper")
    for name in ("work", "out"):
        (where / name).mkdir()
    helper.run(
        HelperSpec(sources=sources(), flags=FLAGS), {}, where / "out", Context(work=where / "work", log=where / "l")
    )
    return where / "out" / helper.NAME
