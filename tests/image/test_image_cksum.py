"""Checksums of sparse files are those of cksum(1)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umlbuild.host import cksum

PAGE = 4096
rows = st.lists(st.tuples(st.integers(0, 500 * PAGE), st.binary(min_size=1, max_size=3 * PAGE)), max_size=5)


def told(path: Path) -> str:
    said = subprocess.run(["cksum", path], capture_output=True, text=True, check=True, timeout=60).stdout
    return said.rsplit(" ", 1)[0]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, size=st.integers(0, 500 * PAGE))
def test_of_any_file(tmp_path: Path, rows: list[tuple[int, bytes]], size: int) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
        for at, data in rows:
            file.seek(at)
            file.write(data)
    assert cksum.of_file(path) == told(path)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 4097, 1 << 18, (1 << 18) + 1, (300 << 20) + 5])
def test_of_holes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
    assert cksum.of_file(path) == told(path)
