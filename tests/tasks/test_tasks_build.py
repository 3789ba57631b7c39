"""Building through plain doit: what is made, shared, kept, told, and which exit codes come out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fakeworld import DODO, MAIN, World

ALL = ["fake_bundle", "fake_image", "fake_kernel", "fake_rootfs"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "a project")


def test_build_makes_all_steps_and_publishes(world: World) -> None:
    world.recipe("router")
    result = world.doit("build", "recipe=router.toml")
    assert (result.code, result.err) == (0, "")
    assert world.ran() == ALL
    assert (world.directory / "dist/router/run").exists()
    assert "dist/router is ready; start it with dist/router/run" in result.out
    assert "kernel write: done" in result.out
    assert "\x1b" not in result.out


def test_second_build_does_nothing(world: World) -> None:
    world.recipe("router")
    world.doit("build", "recipe=router.toml")
    world.ran()
    result = world.doit("build", "recipe=router.toml")
    assert (result.code, world.ran()) == (0, [])
    assert result.out == "dist/router is up to date; start it with dist/router/run\n"


def test_an_edit_makes_only_what_stands_on_it(world: World) -> None:
    world.recipe("router")
    world.doit("build", "recipe=router.toml")
    world.ran()
    world.recipe("router", image="write:other")
    assert world.doit("build", "recipe=router.toml").code == 0
    assert world.ran() == ["fake_bundle", "fake_image"]


def test_two_recipes_share_the_steps_they_have_in_common(world: World) -> None:
    world.recipe("a", rootfs="write:a")
    world.recipe("b", rootfs="write:b")
    result = world.doit("build", "recipe=a.toml,b.toml")
    assert result.code == 0, result.err
    assert world.ran().count("fake_kernel") == 1
    assert world.ran_file.exists() is False
    assert {path.name for path in (world.directory / "dist").iterdir()} == {"a", "b"}


def test_recipe_under_recipes_and_by_absolute_path(world: World, tmp_path: Path) -> None:
    (world.directory / "recipes").mkdir()
    world.recipe("router").rename(world.directory / "recipes/router.toml")
    assert world.doit("build", "recipe=router.toml").code == 0
    absolute = tmp_path / "elsewhere.toml"
    absolute.write_text("format = 1\nname = 'elsewhere'\n")
    assert world.doit("build", f"recipe={absolute}").code == 0
    assert (world.directory / "dist/elsewhere/run").exists()


@pytest.mark.parametrize(
    ("verb", "stages"),
    [("kernel", ["fake_kernel"]), ("rootfs", ["fake_rootfs"]), ("image", ["fake_image", "fake_rootfs"])],
)
def test_one_part_only(world: World, verb: str, stages: list[str]) -> None:
    world.recipe("router")
    result = world.doit(verb, "recipe=router.toml")
    assert (result.code, world.ran()) == (0, stages)
    assert f"{verb} (" in result.out
    assert "is in cache/fake_" in result.out
    assert not (world.directory / "dist").exists()


def test_kernel_and_rootfs_are_made_side_by_side(world: World) -> None:
    world.recipe("router", kernel="meet:2", rootfs="meet:2")
    assert world.doit("build", "recipe=router.toml").code == 0


@pytest.mark.parametrize(
    "flags", [("-n", "2"), ("-n", "0"), ("-n", "3"), ("-n", "2", "-P", "process"), ("-r", "json")]
)
def test_ways_of_running(world: World, flags: tuple[str, ...]) -> None:
    world.recipe("router")
    result = world.doit("build", *flags, "recipe=router.toml")
    assert result.code == 0, result.err
    assert world.ran() == ALL
    assert (world.directory / "dist/router/run").exists()


def test_damaged_entry_is_made_again_and_said(world: World) -> None:
    world.recipe("router")
    world.doit("build", "recipe=router.toml")
    world.ran()
    for stage in ("fake_kernel", "fake_bundle"):
        (entry,) = world.entries(stage)
        good = (entry / "run").read_text()
        (entry / "run").write_text("x")
        result = world.doit("build", "recipe=router.toml")
        assert (result.code, world.ran()) == (0, [stage])
        assert "built again, the entry was damaged" in result.out
        assert (entry / "run").read_text() == good


def test_an_input_that_was_removed_is_not_made_for_nothing(world: World) -> None:
    world.recipe("router")
    world.doit("build", "recipe=router.toml")
    world.ran()
    world.doit("clean", "kernel", "recipe=router.toml")
    assert world.entries("fake_kernel") == []
    assert world.doit("build", "recipe=router.toml").code == 0
    assert world.ran() == []
    world.recipe("router", image="write:other")
    world.doit("build", "recipe=router.toml")
    assert world.ran() == ["fake_bundle", "fake_image", "fake_kernel"]


def test_without_recipe_the_found_ones_are_named(world: World) -> None:
    world.recipe("a")
    world.recipe("b")
    for words in (("build",), ("kernel",), ()):
        result = world.doit(*words)
        assert result.code == 2
        assert "which recipe? found: a.toml, b.toml" in result.err + result.out
        assert "recipe=a.toml" in result.err + result.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("recipe=nix.toml",), "nix.toml: no such recipe"),
        (("recipe=bad.toml",), "bad.toml: "),
        (("recipe=a.toml", "recipe=b.toml"), "fix: recipe=a.toml,b.toml"),
        (("recipe=a.toml,twin.toml",), "'a' is also the name of"),
    ],
)
def test_problems_before_the_build_are_exit_code_2(
    world: World, words: tuple[str, ...], sentence: str
) -> None:
    world.recipe("a")
    world.recipe("b")
    world.recipe("bad", colour="red")
    world.recipe("twin").write_text("format = 1\nname = 'a'\n")
    result = world.doit("build", *words)
    assert result.code == 2
    assert sentence in result.err
    assert "Traceback" not in result.err
    assert world.ran() == []


def test_failed_tool_says_cause_tail_log_and_repetition(world: World) -> None:
    world.recipe("router", kernel="tool")
    result = world.doit("build", "recipe=router.toml")
    assert result.code == 1
    (log,) = (world.directory / "cache/logs").glob("fake_kernel-*.log")
    assert "FAILED: kernel tool\n" in result.out
    assert "exit status 7" in result.out
    assert "| line 11\n" in result.out
    assert "| line 30\n" in result.out
    assert "line 10\n" not in result.out
    assert f"log: {log}" in result.out
    assert "command: sh -c" in result.out
    assert "again: doit build recipe=router.toml" in result.out
    assert world.entries("fake_kernel") == []
    assert "line 1\n" in log.read_text()


def test_failed_stage_says_its_sentence_and_hint(world: World) -> None:
    world.recipe("router", kernel="fail")
    result = world.doit("kernel", "recipe=router.toml")
    assert result.code == 1
    assert "FAILED: kernel fail\n  the fake was told to fail\n    fix: tell it something else\n" in result.out
    assert "again: doit kernel recipe=router.toml" in result.out


def test_a_release_is_repeated_with_all_its_words(world: World) -> None:
    world.recipe("router", kernel="fail")
    result = world.doit("release", "recipe=router.toml", "version=1.2", "force=1", "offline=1")
    assert result.code == 1
    assert "again: doit release recipe=router.toml version=1.2 force=1 --offline\n" in result.out
    assert "force" not in world.doit("release", "recipe=router.toml", "force=0").out


def test_failure_keeps_what_the_other_step_made(world: World) -> None:
    world.recipe("router", kernel="fail", rootfs="slow")
    assert world.doit("build", "recipe=router.toml").code == 1
    assert len(world.entries("fake_rootfs")) == 1


def test_bug_is_one_line_and_exit_code_3(world: World) -> None:
    world.recipe("router", kernel="bug")
    result = world.doit("build", "recipe=router.toml")
    assert result.code == 3
    assert "FAILED: kernel bug: a bug in umlbuild: KeyError: 'surprise' (fakeworld.py:" in result.out
    assert "Traceback" not in result.out + result.err
    (log,) = (world.directory / "cache/logs").glob("fake_kernel-*.log")
    assert "Traceback" in log.read_text()


def test_with_doits_own_reporter_its_codes_hold(world: World) -> None:
    world.recipe("bug", kernel="bug")
    world.recipe("fail", kernel="fail")
    assert world.doit("build", "-r", "console", "recipe=bug.toml").code == 2
    result = world.doit("build", "-r", "console", "recipe=fail.toml")
    assert result.code == 1
    assert "the fake was told to fail" in result.out


def test_garbage_in_doits_database_does_not_matter(world: World) -> None:
    world.recipe("router")
    for name in (".doit.db", ".doit.db.db", ".doit.db.dat", ".doit.db.dir"):
        (world.directory / name).write_bytes(b"garbage\x00" * 100)
    assert world.doit("build", "recipe=router.toml").code == 0
    assert world.doit("build", "recipe=router.toml").code == 0
    assert world.ran() == ALL


def test_list_needs_no_recipe_and_writes_nothing(world: World) -> None:
    world.recipe("router", wants_lock=True)
    before = sorted(world.directory.rglob("*"))
    result = world.doit("list")
    assert result.code == 0
    for verb in ("build", "kernel", "rootfs", "image"):
        assert f"\n{verb} " in f"\n{result.out}"
    assert "router.toml" in result.out
    assert world.doit("list", "recipe=router.toml").code == 0
    assert sorted(world.directory.rglob("*")) == before


def test_list_of_a_recipe_shows_its_steps_in_order(world: World) -> None:
    world.recipe("router")
    result = world.doit("list", "recipe=router.toml")
    steps = [line for line in result.out.splitlines() if line.startswith("step:")]
    assert [line.partition("-")[0] for line in steps] == [
        "step:fake_kernel", "step:fake_rootfs", "step:fake_image", "step:fake_bundle",
    ]  # fmt: skip
    assert steps[0].endswith("kernel write")
    assert "build:router" in result.out


def test_lock_is_resolved_only_when_tasks_run(world: World) -> None:
    world.recipe("router", wants_lock=True)
    result = world.doit("list", "recipe=router.toml")
    assert result.code == 0
    assert "its steps are not known yet" in result.err
    assert world.doit("build", "recipe=router.toml").code == 0
    assert (world.directory / "router.lock").exists()


def test_clean_removes_this_recipe_only(world: World) -> None:
    world.recipe("a", rootfs="write:a", kernel="write:a")
    world.recipe("b", rootfs="write:b", kernel="write:b")
    world.doit("build", "recipe=a.toml,b.toml")
    dry = world.doit("clean", "-n", "recipe=a.toml")
    assert "remove dist/a" in dry.out
    assert (world.directory / "dist/a").exists()
    result = world.doit("clean", "recipe=a.toml")
    assert result.code == 0
    assert "remove kernel write:a from the store" in result.out
    assert [path.name for path in (world.directory / "dist").iterdir()] == ["b"]
    assert len(world.entries("fake_kernel")) == len(world.entries("fake_bundle")) == 1
    world.ran()
    world.doit("build", "recipe=b.toml")
    assert world.ran() == []


def test_clean_of_the_verb_removes_dist_and_keeps_the_store(world: World) -> None:
    world.recipe("a")
    world.doit("build", "recipe=a.toml")
    world.doit("clean", "build", "recipe=a.toml")
    assert not (world.directory / "dist/a").exists()
    assert len(world.entries("fake_kernel")) == 1


def test_clean_without_recipe_removes_nothing(world: World) -> None:
    world.recipe("a")
    world.doit("build", "recipe=a.toml")
    world.doit("clean")
    assert (world.directory / "dist/a/run").exists()
    assert len(world.entries("fake_kernel")) == 1


def test_shared_cache_from_the_environment(world: World, tmp_path: Path) -> None:
    world.recipe("a")
    env = {"UMLBUILD_CACHE": str(tmp_path / "shared cache")}
    assert world.doit("build", "recipe=a.toml", env=env).code == 0
    assert (tmp_path / "shared cache/fake_kernel").is_dir()
    assert not (world.directory / "cache").exists()


def test_a_dodo_elsewhere_lends_its_tasks(world: World, tmp_path: Path) -> None:
    caller = World(tmp_path / "caller", dodo="")
    caller.recipe("mine")
    env = {"DOIT_FILE": str(world.directory / "dodo.py")}
    result = caller.doit("build", "recipe=mine.toml", env=env)
    assert result.code == 0, result.err
    assert "start it with dist/mine/run" in result.out
    assert (caller.directory / "dist/mine/run").exists()
    below = world.directory / "below"
    below.mkdir()
    world.recipe("a")
    seek = {"DOIT_SEEK_FILE": "1"}
    assert world.doit("build", "recipe=../a.toml", cwd=below, env=seek).code == 0
    assert (world.directory / "dist/a/run").exists()


FOREIGN = f"""
{DODO.replace("DOIT_CONFIG = {**DOIT_CONFIG, **ALONE}", "")}
DOIT_CONFIG = {{**DOIT_CONFIG, "default_tasks": ["hello"]}}

def task_hello():
    return {{"actions": [lambda: print("hello from python")], "verbosity": 2}}

def task_tested():
    return {{"actions": ["cat dist/a/run > tested"], "task_dep": ["build"], "targets": ["tested"]}}

def task_broken():
    return {{"actions": ["echo oops; false"]}}
"""


def test_plugin_beside_tasks_of_another_project(tmp_path: Path) -> None:
    world = World(tmp_path / "foreign", FOREIGN)
    world.recipe("a")
    own = world.doit()
    assert (own.code, own.err) == (0, "")
    assert "hello from python" in own.out
    assert world.ran() == []
    both = world.doit("tested", "hello", "recipe=a.toml")
    assert both.code == 0, both.out + both.err
    assert (world.directory / "tested").read_text() == (world.directory / "dist/a/run").read_text()
    assert ".  tested" in both.out
    refused = world.doit("tested")
    assert refused.code == 2
    assert "which recipe?" in refused.out
    broken = world.doit("broken")
    assert broken.code == 1
    assert "oops" in broken.out
    listed = world.doit("list")
    assert "hello" in listed.out
    assert "build" in listed.out


def test_plugin_with_nothing_but_the_tasks(tmp_path: Path) -> None:
    dodo = "import fakeworld\nfakeworld.install()\nfrom umlbuild.tasks import task_build, task_step\n"
    world = World(tmp_path / "foreign", dodo)
    world.recipe("a")
    result = world.doit("build", "recipe=a.toml")
    assert result.code == 0, result.err
    assert world.ran() == ALL


def test_loader_without_dodo(tmp_path: Path) -> None:
    world = World(tmp_path / "bare", dodo="")
    world.recipe("a")
    (world.directory / "doit.cfg").write_text(
        "[GLOBAL]\nloader = umlbuild\n[LOADER]\numlbuild = umlbuild.tasks.product:Loader\n"
    )
    argv = [
        sys.executable,
        "-c",
        "import fakeworld; fakeworld.install(); from doit.__main__ import main; main()",
    ]
    assert world.doit("list", argv=argv).code == 0
    result = world.doit("build", "recipe=a.toml", argv=argv)
    assert result.code == 0, result.err
    assert (world.directory / "dist/a/run").exists()


def test_main_needs_no_dodo_and_minds_no_configuration(tmp_path: Path) -> None:
    world = World(tmp_path / "bare", dodo="")
    world.recipe("a")
    world.recipe("bad", kernel="fail")
    world.recipe("worse", kernel="bug")
    (world.directory / "pyproject.toml").write_text('[tool.doit]\nloader = "nowhere"\nnum_process = 9\n')
    argv = [sys.executable, "-c", MAIN]
    result = world.doit("build", "a.toml", argv=argv)
    assert result.code == 0, result.err
    assert (world.directory / "dist/a/run").exists()
    assert world.doit("build", "recipe=a.toml", "-n", "2", argv=argv).out.startswith("dist/a is up to date")
    codes = {words: world.doit(*words, argv=argv).code for words in [
        ("build",), ("build", "bad.toml"), ("build", "worse.toml"), ("build", "nix.toml"), ("list",),
    ]}  # fmt: skip
    assert list(codes.values()) == [2, 1, 3, 2, 0]
    assert "again: umlbuild build recipe=bad.toml" in world.doit("build", "bad.toml", argv=argv).out
    assert sorted(path.name for path in world.directory.iterdir() if path.name.startswith(".doit")) == []
