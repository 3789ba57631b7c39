"""The helper, compiled once by its own stage; and once with sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helperkit import compiled

from umlbuild.plan.helper import sources


@pytest.fixture(scope="session")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as a bundle gets it."""
    return compiled(tmp_path_factory.mktemp("helper"))


@pytest.fixture(scope="session")
def checked_jail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the address and undefined behaviour sanitizers."""
    where = tmp_path_factory.mktemp("checked")
    for name, text in sources():
        (where / name).write_text(text)
    programs = sorted(str(path) for path in where.glob("*.c"))
    flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, "-o", where / "jail", *programs], check=True, timeout=120)
    return where / "jail"
