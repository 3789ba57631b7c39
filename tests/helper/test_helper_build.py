"""The helper's stage: the same bytes everywhere, and only for who needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helperkit import compiled
from test_plan_keys import plan

from umlbuild.errors import RecipeError
from umlbuild.host import needs
from umlbuild.host.elf import linkage_of
from umlbuild.plan import helper
from umlbuild.recipe.load import merged, parse
from umlbuild.specs.helper import HelperSpec

LANDLOCK = {"launch": {"sandbox": {"kind": "landlock"}}}


def test_two_directories_same_bytes(tmp_path: Path, jail: Path) -> None:
    (tmp_path / "a longer name").mkdir()
    assert compiled(tmp_path / "a longer name").read_bytes() == jail.read_bytes()
    assert linkage_of(jail).interpreter is None and b"umlbuild/launcher" not in jail.read_bytes()
    assert jail.stat().st_size < 1 << 20


def test_it_is_small() -> None:
    assert sum(len(text.splitlines()) for _, text in helper.sources()) < 950


def test_only_who_needs_it_has_the_step(tmp_path: Path) -> None:
    stages = {step.stage for step in plan(tmp_path).bundle.walk()}
    with_it = plan(tmp_path, LANDLOCK)
    assert {step.stage for step in with_it.bundle.walk()} - stages == {"helper"}
    assert with_it.bundle.inputs["helper"].spec == HelperSpec(sources=helper.sources(), flags=helper.FLAGS)


def test_the_compiler_is_in_its_key(tmp_path: Path) -> None:
    recipe = parse(merged({"format": 1, "name": "x", "kernel": {"source": "prebuilt"}, "image": {"kind": "ext4"}},
                          LANDLOCK), "x.toml")  # fmt: skip
    keys = {helper.helper_steps(recipe, lambda program, v=v: f"{program} {v}")["helper"].key for v in (12, 13)}  # type: ignore[misc]
    assert len(keys) == 2


def test_what_the_host_needs(tmp_path: Path) -> None:
    step = plan(tmp_path, LANDLOCK).bundle
    programs = [*needs.programs_of(step.spec), *needs.programs_of(step.inputs["helper"].spec)]
    assert {needs.PACKAGES[name] for name in programs} >= {"gcc", "libc6-dev"} and "bwrap" not in programs
    assert "bwrap" in needs.programs_of(plan(tmp_path).bundle.spec)


@pytest.mark.parametrize(
    ("transport", "possible"),
    [
        ({"kind": "bess", "dst": "/run/x"}, False),
        ({"kind": "fd", "fd": 30}, True),
        ({"kind": "tap", "ifname": "tap0"}, True),
    ],
)
def test_transports_that_open_sockets_are_refused(transport: dict[str, Any], possible: bool) -> None:
    data = {"format": 1, "name": "x", "kernel": {"source": "prebuilt"}, "image": {"kind": "ext4"}, **LANDLOCK,
            "network": [{"transport": transport}]}  # fmt: skip
    if possible:
        parse(data, "x.toml")
        return
    with pytest.raises(RecipeError, match=r"network\[0\].transport: bess opens a socket, .* use fd or tap"):
        parse(data, "x.toml")
