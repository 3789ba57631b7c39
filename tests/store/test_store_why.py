"""What is told of two plans' difference, and what a build remembers to tell it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import tomli_w
from test_plan_keys import BASE, LOCK

from umlbuild import cli, forecast, project, why
from umlbuild.host.history import History
from umlbuild.host.identity import Identities
from umlbuild.host.store import Store
from umlbuild.plan.bundle import Plan
from umlbuild.plan.difference import changes
from umlbuild.plan.record import record_of, slots, told
from umlbuild.plan.step import Step
from umlbuild.plan.wishes import wishes_of
from umlbuild.specs.model import Spec
from umlbuild.specs.packages import DebPin, PackagesSpec

PIN = {"name": "nano", "version": "7.2-1", "sha256": "a" * 64}
LONG = "x" * 100


@pytest.mark.parametrize(
    ("old", "new", "told_as"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 → 2"]),
        ({"a": {"b": "x"}}, {"a": {"b": "y"}}, ["a.b: 'x' → 'y'"]),
        ({}, {"a": "y"}, ["a: added 'y'"]),
        ({"a": "y"}, {}, ["a: removed 'y'"]),
        (["a", "b"], ["b", "c"], ["[a]: removed", "[c]: added"]),
        (["a", "b"], ["b", "a"], [": one order → another"]),
        ([["K", "y"]], [["K", "n"], ["L", "m"]], ["[K]: 'y' → 'n'", "[L]: added 'm'"]),
        ([PIN], [{**PIN, "version": "8.0-1", "sha256": "b" * 64}], ["[nano]: 7.2-1 → 8.0-1"]),
        ([PIN], [PIN, {**PIN, "name": "vim"}], ["[vim]: added 7.2-1"]),
        ([{"path": "/x", "mode": 1}], [{"path": "/x", "mode": 2}], ["[/x].mode: 1 → 2"]),
        ("a\nb\n", "a\nc\n", [", line 2: 'b' → 'c'"]),
        ("a\n", "a\nc\n", [", line 2: added 'c'"]),
        ("a" * 64, "b" * 64, [": aaaaaaaaaaaa → motd (bbbbbbbbbbbb)"]),
        (f"{LONG}old", f"{LONG}new", [f": '…{'x' * 18}old' → '…{'x' * 18}new'"]),
        ([1, 2], [1, 2, 3], [": [1, 2] → [1, 2, 3]"]),
    ],
)  # fmt: skip
def test_changes_are_told_field_by_field(old: object, new: object, told_as: list[str]) -> None:
    assert [str(change) for change in changes(old, new, {"b" * 64: "motd"})] == told_as


def test_a_password_is_not_kept() -> None:
    kept = told({"spec": {"users": [{"name": "root", "password_hash": "$y$secret"}, {"password_hash": "!"}]}})
    assert "secret" not in str(kept)
    assert kept != told({"spec": {"users": [{"name": "root", "password_hash": "$y$other"}, {"password_hash": "!"}]}})


class OneSpec(Spec):
    STAGE: ClassVar[str] = "one"
    text: str = "a"


class TwoSpec(Spec):
    STAGE: ClassVar[str] = "two"
    file: str = "0" * 64


def plan(text: str = "a", file: str = "0" * 64, tool: str = "cc 1") -> Step:
    one = Step(OneSpec(text=text), "the first", tools=(tool,))
    return Step(TwoSpec(file=file), "the second", {"below": one}, sources={file: Path(f"/home/motd-{file[0]}")})


def build(step: Step, cache: Path, recipe: Path) -> None:
    """What the tasks leave of a build, for steps whose output does not matter."""
    for below in step.walk():
        if not Store(cache).has(below.stage, below.key):
            with Store(cache).filling(below.stage, below.key) as out:
                (out / "file").write_text(below.label)
        History(cache).keep_identity(below.stage, below.key, told(below.identity()))
    History(cache).keep_plan(recipe, record_of(recipe, step, {}))


def reasons(step: Step, cache: Path, recipe: Path) -> dict[str, tuple[str, ...]]:
    last = History(cache).last(recipe) or {}
    return {reason.step.stage: reason.causes for reason in why.reasons_of(step, last, cache)}


def test_why(tmp_path: Path) -> None:
    recipe, cache = tmp_path / "r.toml", tmp_path / "cache"
    never = ("was never built here",)
    assert reasons(plan(), cache, recipe) == {"one": never, "two": never}
    build(plan(), cache, recipe)
    assert reasons(plan(), cache, recipe) == {}
    changed = ("input below: the first changed",)
    assert reasons(plan(text="b"), cache, recipe) == {"one": ("text: 'a' → 'b'",), "two": changed}
    assert reasons(plan(tool="cc 2"), cache, recipe) == {
        "one": ("program [cc 1]: removed", "program [cc 2]: added"), "two": changed,
    }  # fmt: skip
    file = "file: motd-0 (000000000000) → motd-1 (111111111111)"
    assert reasons(plan(file="1" * 64), cache, recipe) == {"two": (file,)}
    (Store(cache).path("two", plan().key) / "file").write_text("short")
    assert reasons(plan(), cache, recipe) == {"two": ("its entry is damaged: .manifest.json",)}
    Store(cache).discard("two", plan().key)
    gone = "its entry is not in the store any more (removed, or in another cache)"
    assert reasons(plan(), cache, recipe) == {"two": (gone,)}


def test_a_change_back_is_told_as_nothing_to_make(tmp_path: Path) -> None:
    recipe, cache = tmp_path / "r.toml", tmp_path / "cache"
    build(plan(text="b"), cache, recipe)
    build(plan(), cache, recipe)
    last = History(cache).last(recipe) or {}
    found = list(why.reasons_of(plan(text="b"), last, cache))
    assert [(reason.step.stage, reason.state) for reason in found] == [("one", "in store"), ("two", "in store")]
    assert found[0].causes == ("text: 'a' → 'b'",)


def planned(path: Path, packages: list[str]) -> Plan:
    """The plan of a recipe that is written here, with its lock: the base, and these packages."""
    path.write_text(tomli_w.dumps({**BASE, "rootfs": {**BASE["rootfs"], "packages": packages}}))
    asked = wishes_of(project.read_recipe(path))
    pins = tuple(pin for pin in LOCK.rootfs if pin.base or pin.name in packages)
    project.write_lock(path, LOCK.model_copy(update={"asked": asked, "rootfs": pins}))
    return project.plan_recipe(path, resolve=False, note=lambda _text: None, cache=path.parent / "cache")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a recipe is to be; the cache is beside it, and the programs of this machine do not matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UMLBUILD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Identities, "of", lambda _self, program: f"{program} 1.0")
    (tmp_path / "x").write_text("content\n")
    return tmp_path / "demo.toml"


def test_the_first_package_of_a_recipe(path: Path) -> None:
    """What was the root is now its base, as it was: nothing of it is removed, and it is not to be made."""
    cache = path.parent / "cache"
    alone = planned(path, [])
    build(alone.bundle, cache, path)
    History(cache).keep_plan(path, record_of(path, alone.bundle, alone.wishes))
    both = planned(path, ["nftables"])
    found = {reason.step.label: reason.causes for reason in
             why.reasons_of(both.bundle, History(cache).last(path) or {}, cache)}  # fmt: skip
    new = ("is new: the last build of this recipe had no such step",)
    assert [label for label, causes in found.items() if causes == new] == [
        "1 packages of bookworm", "root file system of bookworm (over its base)",
    ]  # fmt: skip
    assert not any("(base)" in label or "base of" in label for label in found)
    said = why.text_of(path, path.parent)
    assert said.splitlines()[-1] == "asked of the archives: packages[nftables]: added"
    assert "removed" not in said and "was never built here" not in said

    build(both.bundle, cache, path)
    back = planned(path, [])
    found = {reason.step.label: reason.causes for reason in
             why.reasons_of(back.bundle, History(cache).last(path) or {}, cache)}  # fmt: skip
    assert new not in found.values() and not any("base of" in label for label in found)


def test_few_causes_are_told_of_what_is_not_to_be_made(tmp_path: Path) -> None:
    recipe, cache = tmp_path / "r.toml", tmp_path / "cache"
    other = Step(OneSpec(), "the first", tools=tuple(f"cc {n}" for n in range(9)))
    build(other, cache, recipe)
    build(Step(OneSpec(), "the first"), cache, recipe)
    last = History(cache).last(recipe) or {}
    text = list(why._text(recipe, list(why.reasons_of(other, last, cache)), other, ""))
    assert text[-6:] == [*(f"  program [cc {n}]: added" for n in range(5)), "  … and 4 more"]
    Store(cache).discard("one", other.key)
    text = list(why._text(recipe, list(why.reasons_of(other, last, cache)), other, ""))
    assert text[-1] == "  program [cc 8]: added"


def test_a_lock_of_another_recipe(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A package more than when it was built last, and another name for the host."""
    before = planned(path, ["nftables"])
    History(path.parent / "cache").keep_plan(path, record_of(path, before.bundle, before.wishes))
    rootfs = {**BASE["rootfs"], "packages": ["nftables", "htop"], "hostname": "other"}
    path.write_text(tomli_w.dumps({**BASE, "rootfs": rootfs}))
    assert cli.run(["why", "demo.toml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "demo.toml: its lock answers other questions; the next build resolves it (needs the network)",
        "  packages[htop]: added",
        "  other changes of the recipe, and which steps are to be made, are shown once it is resolved: "
        "umlbuild lock demo.toml",
    ]
    assert cli.run(["why", "demo.toml", "configure"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  configure: whether it would be made is not known yet"
    assert cli.run(["why", "demo.toml", "confgure"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "confgure: no such stage" in said.err
    assert "fix: umlbuild lock demo.toml, or name one of bundle, configure, edited_image, " in said.err
    (path.parent / "demo.lock.toml").unlink()
    assert cli.run(["why", "demo.toml"]) == 0
    assert capsys.readouterr().out.startswith("demo.toml: its lock is missing; the next build resolves it")


def test_forecast_knows_states_times_and_bytes(tmp_path: Path) -> None:
    pins = tuple(
        DebPin(name=name, version="1", architecture="amd64", archive="debian", path=f"pool/{name}_1_amd64.deb",
               sha256=name[0] * 64, size=size)
        for name, size in (("aa", 5), ("bb", 7))
    )  # fmt: skip
    (tmp_path / "downloads/aa").mkdir(parents=True)
    (tmp_path / f"downloads/aa/{'a' * 64}.deb").write_bytes(b"12345")
    packages = Step(PackagesSpec(suite=None, architecture="amd64", pins=pins), "packages")
    goal = Step(OneSpec(), "the goal", {"packages": packages, "two": Step(TwoSpec(), "two")})
    history = History(tmp_path)
    history.took("packages", "another", "others", 2.0)
    history.took("packages", "another", "packages", 3.0)
    history.took("one", goal.key, "the goal", 4.0)
    history.took("one", "another", "the goal", 9.0)
    found = forecast.forecast_of(goal, tmp_path)
    rows = {row.step.stage: (row.state, row.seconds, row.fetch) for row in found.rows}
    assert rows == {"packages": ("to build", 3.0, 7), "two": ("to build", None, 0), "one": ("to build", 4.0, 0)}
    assert (found.seconds, found.fetch) == (7.0, 7)
    told_as = forecast.text_of(found).splitlines()[-1]
    assert told_as == (
        "3 of 3 steps to make, about 7.0 s (7.0 s one after another), 1 never made here, so of unknown time, "
        "7 B to download"
    )
    with Store(tmp_path).filling("one", goal.key) as out:
        (out / "file").write_text("x")
    assert {row.state for row in forecast.forecast_of(goal, tmp_path).rows} == {"in store", "not needed"}


def test_a_history_that_cannot_be_used_says_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "file")
    (tmp_path / "file").write_text("not a directory")
    history.took("one", "key", "label", 1.0)
    history.keep_identity("one", "key", {})
    assert (history.seconds("one", "key", "label"), history.identity("one", "key")) == (None, None)
    other = History(tmp_path)
    (tmp_path / "times").mkdir()
    (tmp_path / "times/one.jsonl").write_text('{"half\n[1]\n{"key": "k", "label": "l", "seconds": 2}\n')
    assert other.seconds("one", "k", "") == 2


def test_slots_name_every_place_of_a_step() -> None:
    shared = Step(OneSpec(), "one")
    goal = Step(TwoSpec(), "two", {"a": shared, "b": shared})
    assert [slot for slot, _ in slots(goal)] == ["bundle.a", "bundle.b", "bundle"]


def test_a_real_build_remembers(tmp_path: Path) -> None:
    """The product's own build of the small world of the tasks' tests."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'tasks')!r})\n"
        "import fakeworld; fakeworld.install()\n"
        "from umlbuild.tasks import main\n"
        "sys.exit(main(['build', 'recipe=r.toml']))\n"
    )
    (tmp_path / "r.toml").write_text("format = 1\nname = 'r'\n")
    env = {"FAKE_RAN": str(tmp_path / "ran"), "PATH": "/usr/bin:/bin"}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, timeout=60)
    history = History(tmp_path / "cache")
    last = history.last(tmp_path / "r.toml")
    assert last is not None
    steps = last["steps"]
    assert isinstance(steps, dict)
    assert set(steps) == {"bundle", "bundle.image", "bundle.image.root", "bundle.kernel"}
    for step in steps.values():
        identity = history.identity(step["stage"], step["key"])
        assert identity is not None
        assert identity["stage"] == step["stage"]
        assert history.seconds(step["stage"], step["key"], "") is not None
    assert len((tmp_path / "cache/times/fake_bundle.jsonl").read_text().splitlines()) == 1
