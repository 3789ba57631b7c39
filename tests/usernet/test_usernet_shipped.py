"""The shipped example, as its first lines say."""

from __future__ import annotations

import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

import bundles
import pytest
import world

from umlbuild.runtime.machine import Machine

pytestmark = [
    pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(world.why_not()), reason=world.why_not()),
]  # fmt: skip


def test_online(tmp_path: Path) -> None:
    recipe = shutil.copy(bundles.PROJECT / "recipes" / "online.toml", tmp_path)
    bundle = bundles.build_file(Path(recipe), tmp_path)

    def body() -> None:
        world.serve(world.OUTSIDE, 80)
        with Machine.start(bundle, ephemeral=True, allow_root=True, timeout_s=150) as machine:
            machine.wait_up(100)
            assert machine.exec(f"curl -sS -m 10 http://{world.NAME}/", timeout_s=30).stdout == world.PAGE
            page = b""
            deadline = time.monotonic() + 20
            while b"Hello" not in page and time.monotonic() < deadline:
                try:
                    with urllib.request.urlopen("http://127.0.0.1:8080/", timeout=5) as answer:
                        page = answer.read()
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.3)
            assert b"Hello from a Linux kernel" in page

    world.inside(body)
