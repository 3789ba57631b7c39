"""A lock that is missing or of another recipe, where none can be made: what disagrees is said, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from umlbuild import project
from umlbuild.errors import FetchError, LockError
from umlbuild.host import offline
from umlbuild.lock import Lock
from umlbuild.plan.wishes import wishes_of

RECIPE: dict[str, Any] = {
    "format": 1, "name": "demo", "kernel": {"source": {"kind": "prebuilt", "suite": "trixie"}},
    "image": {"kind": "ext4"}, "rootfs": {"packages": ["tool"]},
}  # fmt: skip
TARBALL = {"kind": "tarball", "url": "http://127.0.0.1:9/linux-7.3.4.tar.xz", "sha256": "0" * 64}


def silent(_text: str) -> None:
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A recipe without a lock."""
    written(tmp_path / "demo.toml", RECIPE)
    return tmp_path / "demo.toml"


def written(path: Path, data: dict[str, Any]) -> None:
    path.write_text(tomli_w.dumps(data))


def locked(path: Path) -> Lock:
    """Give a recipe a lock that answers it, without a package."""
    lock = Lock(asked=wishes_of(project.read_recipe(path)))
    project.write_lock(path, lock)
    return lock


def edited(path: Path) -> None:
    locked(path)
    written(path, {**RECIPE, "rootfs": {"packages": ["tool", "other"], "suite": "trixie"}})


def planned(path: Path) -> None:
    project.plan_recipe(path, resolve=False, note=silent, cache=path.parent / "cache")


def test_a_plan_without_a_lock(path: Path) -> None:
    with pytest.raises(LockError, match=r"^demo\.toml: there is no demo\.lock\.toml") as caught:
        planned(path)
    assert caught.value.hint == "umlbuild lock demo.toml (or: doit build recipe=demo.toml)"


def test_a_plan_with_another_recipes_lock(path: Path) -> None:
    edited(path)
    with pytest.raises(LockError) as caught:
        planned(path)
    assert caught.value.message.splitlines() == [
        "demo.toml: demo.lock.toml is of another recipe:",
        "  rootfs.suite: the recipe asks for trixie, the lock answers bookworm",
        "  rootfs.packages: the lock does not answer other",
    ]
    assert caught.value.hint == "umlbuild lock demo.toml"


def test_offline_what_disagrees_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(offline.VARIABLE, "1")
    cache = path.parent / "cache"
    recipe = project.read_recipe(path)
    with pytest.raises(FetchError, match="resolving packages: needs the network"):
        project.locked_or_resolved(path, recipe, cache=cache, note=silent)
    edited(path)
    recipe = project.read_recipe(path)
    with pytest.raises(LockError, match=r"this build is offline, but demo\.lock\.toml is of another") as caught:
        project.locked_or_resolved(path, recipe, cache=cache, note=silent)
    assert "  rootfs.packages: the lock does not answer other" in caught.value.message.splitlines()
    assert (caught.value.hint, caught.value.exit_code) == ("with a network: umlbuild lock demo.toml", 2)


def test_offline_a_tarball_is_answered_by_the_recipe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are named there, so that apt is not asked."""
    monkeypatch.setenv(offline.VARIABLE, "1")
    written(path, {**RECIPE, "kernel": {"source": TARBALL}})
    locked(path)
    written(path, {**RECIPE, "kernel": {"source": {**TARBALL, "sha256": "1" * 64}}})
    recipe = project.read_recipe(path)
    lock = project.locked_or_resolved(path, recipe, cache=path.parent / "cache", note=silent)
    assert lock.asked == wishes_of(recipe)
