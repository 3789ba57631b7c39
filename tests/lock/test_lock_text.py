"""The lock's text, how it differs from a recipe, and the changelog between two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_plan_keys import ASKED, LOCK, keys_of, pin, plan

from umlbuild import lock as locks
from umlbuild.errors import LockError
from umlbuild.kinds.kernels.wish import PackageWish
from umlbuild.lock import Lock, Release, Tarball
from umlbuild.plan.wishes import wishes_of
from umlbuild.recipe.load import parse

FILE = Path("demo.lock.toml")
RELEASE = Release(suite="bookworm", archive="debian", date="2026-07-11T10:16:37Z", sha256="cd" * 32)

names = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z")), max_size=20)


@given(names, st.lists(names, max_size=3), st.sampled_from([None, "mmdebstrap 1.3.5"]))
def test_a_lock_is_what_its_text_says(version: str, packages: list[str], bootstrap: str | None) -> None:
    asked = ASKED.model_copy(update={"packages": tuple(packages)})
    lock = Lock(asked=asked, bootstrap=bootstrap, release=(RELEASE,), rootfs=(pin("bash", version),))
    assert locks.parse(locks.text_of(lock), FILE, "demo.toml") == lock


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('format = 1\nasked = "0123"\n', "is a lock of format 1, this umlbuild has 2"),
        ('asked = "0123"\n', "is a lock of format 1"),
        ("format = 99\n", "is a lock of format 99"),
        ("format = \n", "is no lock: .*line 1"),
        ("format = 2\n", r"\(asked: Field required\)"),
        (locks.text_of(LOCK).replace("size = 1000", 'size = "1000"'), r"kernel\.0\.size"),
    ],
)
def test_what_is_no_lock_names_the_command_that_writes_one(text: str, says: str) -> None:
    with pytest.raises(LockError, match=says) as caught:
        locks.parse(text, FILE, "demo.toml")
    assert "umlbuild lock demo.toml" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, []),
        ({"suite": "trixie"}, ["rootfs.suite: the recipe asks for trixie, the lock answers bookworm"]),
        ({"packages": ("htop", "vim")}, ["rootfs.packages: the lock does not answer htop, vim"]),
        ({"components": ()}, ["rootfs.components: the recipe does not ask for main"]),
        ({"filters": ("tcpdump",)}, ["filter tools: the lock does not answer tcpdump"]),
        ({"base": ("systemd-sysv",)}, ["packages of the base: the lock does not answer systemd-sysv"]),
        (
            {"kernel": PackageWish(suite="sid", pattern="linux-source-.*", version="7.3-1")},
            ["kernel.source: the recipe asks for linux-source-.* 7.3-1 of sid, the lock answers none"],
        ),
        (
            {"tarball": Tarball(file="linux-7.3.tar.xz", sha256="ab" * 32)},
            ["kernel.source: the recipe asks for linux-7.3.tar.xz (abababababab), the lock answers none"],
        ),
    ],
)
def test_disagreements(change: dict[str, Any], says: list[str]) -> None:
    assert locks.disagreements(ASKED, ASKED.model_copy(update=change)) == says


def test_changes() -> None:
    old = Lock(asked=ASKED, rootfs=(pin("a", "1"), pin("b", "1"), pin("c", "1"), pin("d", "1")))
    other = pin("d", "1").model_copy(update={"sha256": "cd" * 32})
    new = Lock(asked=ASKED, rootfs=(pin("a", "1"), pin("b", "2~x"), pin("z", "3"), other), tools=(pin("c", "1"),))
    assert locks.changes(old, new) == [
        "rootfs: b 1 -> 2~x",
        "rootfs: - c 1",
        "rootfs: d 1: other bytes than before (abababababab -> cdcdcdcdcdcd)",
        "rootfs: + z 3",
        "tools: + c 1",
    ]
    assert locks.changes(new, new) == []
    assert len(locks.changes(None, old)) == 4


def test_a_tarball_is_among_the_questions() -> None:
    source = {"kind": "tarball", "url": "https://mirror.example/x/linux-7.3.4.tar.xz?a=b", "sha256": "0" * 64}
    recipe = parse({"format": 1, "name": "demo", "kernel": {"source": source}, "image": {"kind": "ext4"}}, "demo.toml")
    assert wishes_of(recipe).tarball == Tarball(file="linux-7.3.4.tar.xz", sha256="0" * 64)
    assert wishes_of(recipe).kernel is None


def test_where_a_package_was_found_moves_the_bundles_key_only(tmp_path: Path) -> None:
    elsewhere = LOCK.model_copy(
        update={part: tuple(p.model_copy(update={"suite": "other"}) for p in pins) for part, pins in LOCK.parts()}
        | {"release": (RELEASE,), "bootstrap": "other"}
    )
    moved = set(keys_of(plan(tmp_path, lock=elsewhere)).items()) ^ set(keys_of(plan(tmp_path)).items())
    assert {label for label, _ in moved} == {"bundle: bundle demo"}  # it holds the lock
