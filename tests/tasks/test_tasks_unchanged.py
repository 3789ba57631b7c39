"""A build with nothing to do is told without planning; and only when there is nothing to do."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import bundles
import pytest

import umlbuild
from umlbuild.host import inuse
from umlbuild.host.answers import Answers
from umlbuild.host.files import Files
from umlbuild.host.history import History
from umlbuild.host.publish import publish
from umlbuild.host.store import Store
from umlbuild.plan.step import Step
from umlbuild.specs.model import Spec
from umlbuild.tasks import request as requests
from umlbuild.tasks import unchanged
from umlbuild.tasks.request import Request

TOOL = "#!/bin/sh\necho tool 1\n"


class BelowSpec(Spec):
    STAGE: ClassVar[str] = "below"


class TopSpec(Spec):
    STAGE: ClassVar[str] = "top"


@dataclass(frozen=True)
class Plan:
    name: str
    recipe_path: Path
    bundle: Step
    parts: dict[str, Step]


class Yard:
    """A project with one recipe that was built: it names a file, a directory, a program and another recipe."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.recipe = home / "demo.toml"
        self.texts = {
            "demo.toml": "recipe", "base.toml": "base", "demo.lock.toml": "lock", "motd": "hello", "tree/a": "a",
        }  # fmt: skip
        for name, text in self.texts.items():
            (home / name).parent.mkdir(exist_ok=True)
            (home / name).write_text(text)
        (home / "bin").mkdir()
        self.tool = home / "bin/tool"
        self.tool.write_text(TOOL)
        self.tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
        below = Step(BelowSpec(), "below")
        self.bundle = Step(TopSpec(), "top", {"below": below})
        self.below = below
        self.store = Store(home / "cache")
        for step in self.bundle.walk():
            with self.store.filling(step.stage, step.key) as out:
                (out / "run").write_text("run")
                (out / "manifest.toml").write_text("manifest")
        publish(self.entry(self.bundle), home / "dist/demo")
        self.answers = Answers()
        self.plan(self.answers)

    def entry(self, step: Step) -> Path:
        return self.store.path(step.stage, step.key)

    def plan(self, answers: Answers, name: str = "demo", recipe: Path | None = None) -> None:
        """As planning does: ask, and keep the answers of what was published."""
        from umlbuild.host.identity import Identities

        for text in ("demo.toml", "base.toml", "demo.lock.toml"):
            answers.read(self.home / text)
        files = Files(self.home, "demo.toml", answers)
        files.digest("motd", "at")
        files.text("motd", "at")
        files.tree("tree", "at")
        answers.put("program", "tool", Identities(self.store.root).of("tool"))
        plan: Any = Plan(name, recipe or self.recipe, self.bundle, {"bundle": self.bundle})
        History(self.store.root).keep_plan(plan.recipe_path, {"plan": self.bundle.key})
        unchanged.remember(self.store.root, plan, answers)

    def record(self) -> Path:
        return next((self.store.root / "unchanged").iterdir())

    def edit_record(self, **values: object) -> None:
        self.record().write_text(json.dumps({**json.loads(self.record().read_bytes()), **values}))

    def known(self, *words: str, recipes: tuple[str, ...] = ("demo.toml",), **request: Any) -> list[str]:
        """The names of bundles that need no plan, as a new process finds them."""
        unchanged._code.cache_clear()
        asked = Request(recipes=",".join(recipes), started=self.home, project=self.home, running=True, alone=True)
        with requests.given("doit", words or ("build", f"recipe={','.join(recipes)}")):
            found = unchanged.known(dataclasses.replace(asked, **request), [self.home / name for name in recipes])
        return [one.name for one in found]

    def write_as_before(self, name: str, text: str) -> None:
        """Another content of the same size, with its times put back."""
        path = self.home / name
        info = path.stat()
        assert len(text) == info.st_size
        path.write_text(text)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    monkeypatch.delenv("UMLBUILD_CACHE", raising=False)
    monkeypatch.delenv("UMLBUILD_CACHE_SHARED", raising=False)
    unchanged._code.cache_clear()
    held: list[int] = []
    monkeypatch.setattr(inuse, "_held", held)  # descriptors, which a build has until it ends
    yield Yard(tmp_path, monkeypatch)
    for descriptor in held:
        os.close(descriptor)
    unchanged._code.cache_clear()


def test_what_is_as_it_was_is_known(yard: Yard) -> None:
    assert yard.known() == ["demo"]
    assert yard.known("--locked", "build", "--offline", "recipe=demo.toml") == ["demo"]


def test_a_touch_or_what_is_below_and_gone_changes_nothing(yard: Yard) -> None:
    (yard.home / "motd").touch()
    shutil.rmtree(yard.entry(yard.below))
    assert yard.known() == ["demo"]


def test_entries_are_stamped_as_used(yard: Yard) -> None:
    manifest = yard.entry(yard.below) / ".manifest.json"
    os.utime(manifest, (1, 1))
    assert yard.known() == ["demo"]
    assert manifest.stat().st_mtime > 1


CHANGES: dict[str, Callable[[Yard], object]] = {
    "recipe": lambda yard: yard.write_as_before("demo.toml", "Recipe"),
    "base": lambda yard: yard.write_as_before("base.toml", "Base"),
    "lock": lambda yard: yard.write_as_before("demo.lock.toml", "Lock"),
    "no lock": lambda yard: (yard.home / "demo.lock.toml").unlink(),
    "file": lambda yard: yard.write_as_before("motd", "hallo"),
    "file gone": lambda yard: (yard.home / "motd").unlink(),
    "in the tree": lambda yard: yard.write_as_before("tree/a", "b"),
    "new in the tree": lambda yard: (yard.home / "tree/b").write_text("b"),
    "mode in the tree": lambda yard: (yard.home / "tree/a").chmod(0o700),
    "tree gone": lambda yard: shutil.rmtree(yard.home / "tree"),
    "program": lambda yard: yard.tool.write_text(TOOL.replace("1", "2.0")),
    "program gone": lambda yard: yard.tool.unlink(),
    "program broken": lambda yard: yard.tool.write_text("#!/bin/sh\nexit 1 # broken\n"),
    "bundle gone": lambda yard: shutil.rmtree(yard.entry(yard.bundle)),
    "bundle damaged": lambda yard: (yard.entry(yard.bundle) / "run").write_text("r"),
    "input damaged": lambda yard: (yard.entry(yard.below) / "run").write_text("r"),
    "dist gone": lambda yard: shutil.rmtree(yard.home / "dist/demo"),
    "dist edited": lambda yard: (yard.home / "dist/demo/run").write_text("edited"),
    "new in dist": lambda yard: (yard.home / "dist/demo/new").touch(),
    "record gone": lambda yard: yard.record().unlink(),
    "record cut": lambda yard: yard.record().write_text(yard.record().read_text()[:-20]),
    "record of others": lambda yard: yard.record().write_text("[]"),
    "record without end": lambda yard: yard.record().write_text("[" * 100_000),
    "answers of others": lambda yard: yard.edit_record(answers=[["file", "x"]]),
    "a new kind of answer": lambda yard: yard.edit_record(answers=[["x", "", ""]]),
    "a file that cannot be": lambda yard: yard.edit_record(answers=[["file", "\0", ""]]),
    "no answers": lambda yard: yard.edit_record(answers=[]),
    "no steps": lambda yard: yard.edit_record(steps=[]),
    "no key": lambda yard: yard.edit_record(steps=[["top", "k" * 5000]]),
    "no name": lambda yard: yard.edit_record(name=["demo"]),
    "a name that cannot be": lambda yard: yard.edit_record(name="\udc80"),
    "nothing for why to compare with": lambda yard: shutil.rmtree(yard.store.root / "plans"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_anything_else_is_planned(yard: Yard, what: str) -> None:
    CHANGES[what](yard)
    assert yard.known() == []


@pytest.mark.parametrize(
    "words",
    [
        ("kernel", "recipe=demo.toml"), ("build", "image", "recipe=demo.toml"), ("build:demo", "recipe=demo.toml"),
        ("build", "-a", "recipe=demo.toml"), ("mine", "recipe=demo.toml"), ("recipe=demo.toml",),
        ("build", "locked=1", "recipe=demo.toml"),
    ],
)  # fmt: skip
def test_other_words_are_for_the_plan(yard: Yard, words: tuple[str, ...]) -> None:
    assert yard.known(*words) == []


def test_only_a_build_without_others_tasks(yard: Yard) -> None:
    assert yard.known(alone=False) == []
    assert yard.known(running=False) == []


def test_all_recipes_or_none(yard: Yard) -> None:
    (yard.home / "two.toml").write_text("two")
    assert yard.known(recipes=("demo.toml", "two.toml")) == []


def test_two_recipes_with_one_name_are_for_the_plan_to_refuse(yard: Yard) -> None:
    (yard.home / "two.toml").write_text("two")
    yard.plan(Answers(), recipe=yard.home / "two.toml")
    assert yard.known(recipes=("two.toml",)) == ["demo"]
    assert yard.known(recipes=("demo.toml", "two.toml")) == []


CODE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "edited": (lambda code: (code / "plan.py").write_text("x = 2\n"), ("plain", "linked", "of links")),
    "new": (lambda code: (code / "new.sh").touch(), ("plain", "linked")),
    "gone": (lambda code: (code / "plan.py").unlink(), ("plain", "linked")),
    "renamed": (lambda code: (code / "plan.py").rename(code / "b.py"), ("plain", "linked")),
}


@pytest.mark.parametrize(("what", "form"), [(what, form) for what, (_, forms) in CODE.items() for form in forms])
def test_other_code_plans(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, form: str
) -> None:
    code = tmp_path / "code"
    (code / "__pycache__").mkdir(parents=True)
    (code / "plan.py").write_text("x = 1\n")
    place = code if form == "plain" else tmp_path / "linked"
    if form == "linked":
        place.symlink_to(code)
    elif form == "of links":
        place.mkdir()
        (place / "plan.py").symlink_to(code / "plan.py")
    monkeypatch.setattr(umlbuild, "__file__", str(place / "__init__.py"))
    unchanged._code.cache_clear()
    yard.plan(Answers())
    (code / "__pycache__/plan.pyc").touch()
    assert yard.known() == ["demo"]
    CODE[what][0](code)
    assert yard.known() == []


def test_code_that_cannot_be_told_plans(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a zip; with a path that is no text; a file that an editor just took away."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/gone.py").symlink_to("nowhere")
    monkeypatch.setattr(umlbuild, "__file__", str(tmp_path / "code/__init__.py"))
    assert yard.known() == []
    yard.record().unlink()
    yard.plan(Answers())
    assert not list((yard.store.root / "unchanged").iterdir())
    (tmp_path / "code/gone.py").unlink()
    assert yard.known() == []
    monkeypatch.setattr(sys, "executable", "/\udce9")
    assert yard.known() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda site: (site / "umlbuild_test_library-2.dist-info").mkdir(),
        lambda site: (site / "umlbuild_test_library/__init__.py").write_text(""),
    ],
    ids=["another version", "the same version again"],
)  # fmt: skip
def test_other_libraries_plan(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    library = tmp_path / "site" / "umlbuild_test_library" / "__init__.py"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(unchanged, "_LIBRARIES", ("umlbuild_test_library",))
    unchanged._code.cache_clear()
    yard.plan(Answers())
    assert yard.known() == ["demo"]
    change(tmp_path / "site")
    assert yard.known() == []


@pytest.mark.parametrize("what", ["secret file", "secret variable", "changed between two questions"])
def test_a_plan_of_more_than_its_answers_is_not_remembered(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    yard.record().unlink()
    answers = Answers()
    files = Files(yard.home, "demo.toml", answers)
    if what == "secret file":
        files.text("motd", "at", secret=True)
    elif what == "secret variable":
        monkeypatch.setenv("PASSWORD", "x")
        files.secret("PASSWORD", "at")
    else:
        files.digest("motd", "at")
        (yard.home / "motd").write_text("changed")
    yard.plan(answers)
    assert not list((yard.store.root / "unchanged").iterdir())


def test_a_lock_that_was_written_meanwhile_counts(yard: Yard) -> None:
    answers = Answers()
    answers.read(yard.home / "demo.lock.toml")
    (yard.home / "demo.lock.toml").write_text("resolved")
    answers.wrote(yard.home / "demo.lock.toml", "resolved")
    yard.plan(answers)
    assert yard.known() == ["demo"]


def test_a_cache_that_cannot_be_written_is_no_error(yard: Yard) -> None:
    shutil.rmtree(yard.store.root / "unchanged")
    (yard.store.root / "unchanged").touch()
    yard.plan(Answers())
    assert yard.known() == []


@pytest.mark.build
@pytest.mark.timeout(900)
def test_a_real_build_plans_only_when_there_is_something_to_do(tmp_path: Path) -> None:
    source = {"kind": "prebuilt", "suite": "trixie"}
    data = bundles.recipe("unchanged", {"source": source}, "busybox", "ext4", rootfs={"hostname": "one"})
    dist = bundles.build(data, tmp_path)
    assert not planned(tmp_path)
    data["rootfs"]["hostname"] = "two"
    manifest = (dist / "manifest.toml").read_bytes()
    bundles.build(data, tmp_path)
    assert (dist / "manifest.toml").read_bytes() != manifest
    assert not planned(tmp_path)
    (dist / "run").write_text("edited")
    assert planned(tmp_path)
    assert (dist / "run").read_text() != "edited"
    assert not planned(tmp_path)


def planned(project: Path) -> bool:
    """Build again; whether the code that plans was loaded."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "umlbuild.cli", "build", "unchanged.toml"],
        cwd=project, env={**os.environ, "UMLBUILD_CACHE": str(bundles.CACHE)}, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "dist/unchanged is " in done.stdout
    return "umlbuild.plan.bundle" in done.stderr
