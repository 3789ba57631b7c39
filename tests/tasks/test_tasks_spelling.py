"""What is misspelled on a command line ends it before any work, with what was probably meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fakeworld import DODO, DOIT, MAIN, World

from umlbuild.errors import UserError
from umlbuild.tasks import spelling
from umlbuild.tasks.request import verb_of

WRONG = [
    ("release recipe=a.toml versoin=9", "versoin=: there is no such variable; did you mean version?"),
    ("recipe=a.toml lockd=1", "lockd=: there is no such variable; did you mean locked"),
    ("build recipe=a.toml lock=1", "lock=: there is no such variable; did you mean locked"),
    ("release recipe=a.toml version=", "version=: is empty"),
    ("release key= recipe=a.toml", "key=: is empty"),
    ("build --lockd recipe=a.toml", "--lockd: there is no such option; did you mean locked"),
    ("build --lock recipe=a.toml", "--lock: there is no such option; did you mean locked"),
    ("build --process=two recipe=a.toml", "build: -n wants a number"),
    ("build -z recipe=a.toml", "option -z not recognized"),
    ("build a.toml", "a.toml: a recipe is named by a variable"),
    ("relase recipe=a.toml", "relase: there is no such verb; did you mean release"),
    ("clean build recip=a", "recip=: there is no such variable; did you mean recipe"),
    ("release:hello versoin=9", "versoin=: there is no such variable; did you mean version"),
    ("run versoin=2 recipe=a", "versoin=: there is no such variable; did you mean version"),
    ("lis", "lis: there is no such verb; did you mean list"),
]

RIGHT = [
    "", "recipe=a.toml", "build recipe=a.toml,b.toml --locked --offline", "build recipe=a locked=1 -n 2 -a",
    "release recipe=a version=1.2 key=k.pem force=1", "-n 2 build recipe=a", "build kernel recipe=a",
    "check -k x=y tests", "check -k build -x", "build:a -a recipe=a",
    "step:kernel-123 recipe=a", "build:a recipe=a", "list --all", "help build", "dist/a/run", "clean recipe=a", "zzz",
    "build --process=3 recipe=a=b.toml", "build recipe=a -- kernel",
    "list build --all recipe=a", "clean --dry-run build recipe=a", "clean build -n recipe=a",
    "run build --locked recipe=a",
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_what_is_misspelled(line: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        spelling.check(line.split(), "./doit")
    assert caught.value.message.startswith(said)
    assert caught.value.hint


@pytest.mark.parametrize("line", RIGHT)
def test_what_is_not(line: str) -> None:
    spelling.check(line.split(), "./doit")


def test_a_recipe_that_is_no_variable_is_told_as_one() -> None:
    with pytest.raises(UserError) as caught:
        spelling.check(["release", "a.toml"], "./doit")
    assert caught.value.hint == "./doit release recipe=a.toml"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "a project")


ALONE = DODO.replace("import ALONE", "import alone").replace("{**DOIT_CONFIG, **ALONE}", "alone()")


@pytest.mark.parametrize("how", ["dodo.py", "umlbuild"])
def test_the_exit_code_is_that_of_a_usage_error(world: World, how: str) -> None:
    (world.directory / "dodo.py").write_text(ALONE)
    argv = (sys.executable, "-c", MAIN) if how == "umlbuild" else (str(DOIT),)
    world.recipe("a")
    result = world.doit("build", "recipe=a.toml", "lockd=1", argv=argv)
    assert (result.code, world.ran()) == (2, [])
    assert "did you mean locked" in result.err and "Traceback" not in result.err
    assert world.doit("build", "recipe=a.toml", "locked=1", argv=argv).code == 0


def test_help_of_a_verb(world: World) -> None:
    (world.directory / "dodo.py").write_text(ALONE)
    result = world.doit("release", "--help")
    assert result.code == 0
    assert "--locked" in result.out and "version=1.2" in result.out


def test_help_of_pytest_is_not_a_verbs() -> None:
    assert verb_of(["check", "-k", "build", "--help"]) is None
    assert verb_of(["-n", "2", "build:hello"]) == "build:hello"


def test_tasks_of_others_may_have_other_variables(world: World) -> None:
    world.recipe("a")
    assert world.doit("build", "recipe=a.toml", "mine=1").code == 0
