"""A small world for the tests of the tasks: recipes of four keys, stages that sleep, fail or break.

`install()` puts it in the place of umlbuild.project and of the stages, within the process that doit runs
in; `World` makes a project directory and runs doit in it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from umlbuild.errors import LockError, RecipeError, StepFailed
from umlbuild.host.answers import Answers
from umlbuild.plan.step import Step
from umlbuild.specs.model import Spec
from umlbuild.stages.context import Context

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DOIT = Path(sys.executable).parent / "doit"


class KernelSpec(Spec):
    STAGE: ClassVar[str] = "fake_kernel"
    do: str


class RootfsSpec(Spec):
    STAGE: ClassVar[str] = "fake_rootfs"
    do: str


class ImageSpec(Spec):
    STAGE: ClassVar[str] = "fake_image"
    do: str


class BundleSpec(Spec):
    STAGE: ClassVar[str] = "fake_bundle"
    name: str


@dataclass(frozen=True)
class Plan:
    name: str
    recipe: Recipe
    recipe_path: Path
    bundle: Step
    parts: Mapping[str, Step]
    mirrors: Mapping[str, str] = field(default_factory=dict)
    wishes: Mapping[str, object] = field(default_factory=dict)


def plan_recipe(
    path: Path, *, resolve: bool, note: Callable[[str], None], cache: Path, locked: bool = False,
    answers: Answers | None = None,
) -> Plan:  # fmt: skip
    assert answers is not None
    answers.read(path)
    data = read_recipe(path)
    if data.wants_lock and not path.with_suffix(".lock").exists():
        if locked:
            raise LockError("there is no lock", "write one")
        if not resolve:
            raise LockError("nothing is resolved yet")
        note("resolving")
        path.with_suffix(".lock").write_text("")
    kernel = Step(KernelSpec(do=data.kernel), f"kernel {data.kernel}")
    rootfs = Step(RootfsSpec(do=data.rootfs), f"rootfs {data.rootfs}")
    image = Step(ImageSpec(do=data.image), "image", {"root": rootfs})
    bundle = Step(BundleSpec(name=data.name), f"bundle {data.name}", {"kernel": kernel, "image": image})
    parts = {"kernel": kernel, "rootfs": rootfs, "image": image, "bundle": bundle}
    return Plan(data.name, data, path, bundle, parts)


@dataclass(frozen=True)
class Recipe:
    name: str
    kernel: str = "write"
    rootfs: str = "write"
    image: str = "write"
    format: int = 1
    version: str | None = None
    wants_lock: bool = False
    build: None = None


def read_recipe(path: Path) -> Recipe:
    try:
        return Recipe(**tomllib.loads(path.read_text()))
    except TypeError as error:
        raise RecipeError([f"{path.name}: {error}"]) from error


def publish(entry: Path, dist: Path) -> bool:
    dist.parent.mkdir(exist_ok=True)
    fd = os.open(dist.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # as the real one: two builds may publish at once
        if dist.exists() and (dist / "run").read_bytes() == (entry / "run").read_bytes():
            return False
        shutil.rmtree(dist, ignore_errors=True)
        shutil.copytree(entry, dist)
    finally:
        os.close(fd)
    return True


def is_same(entry: Path, dist: Path) -> bool:
    return False


def run_stage(spec: Spec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Does what the spec's `do` says: write | fail | tool | bug | sleep | children | think | wait:FILE."""
    with Path(os.environ["FAKE_RAN"]).open("a") as file:
        file.write(f"{spec.STAGE}\n")
    do = getattr(spec, "do", "write")
    what, _, word = do.partition(":")
    context.note("half way")
    if what == "fail":
        raise StepFailed("the fake was told to fail", "tell it something else")
    if what == "tool":
        context.run(["sh", "-c", "for i in $(seq 30); do echo line $i; done; exit 7"])
    if what == "bug":
        raise KeyError("surprise")
    if what == "sleep":
        context.run(["sleep", "60.125"])
    if what == "children":  # grandchildren that ignore TERM
        context.run(["sh", "-c", "trap '' TERM; (trap '' TERM; sleep 60.375) & sleep 60.625"])
    if what == "think":
        end = time.monotonic() + 60
        while time.monotonic() < end:
            pass
    if what == "slow":
        (out / "half").write_text("half")
        context.run(["sleep", "1.5"])
    if what == "meet":  # ends only when the other side has begun as well
        Path(os.environ["FAKE_RAN"] + spec.STAGE).touch()
        end = time.monotonic() + 20
        while len(list(Path(os.environ["FAKE_RAN"]).parent.glob("ranfake_*"))) < int(word):
            if time.monotonic() > end:
                raise StepFailed("nobody came")
            time.sleep(0.02)
    text = "".join(f"{role}: {(path / 'run').read_text()}" for role, path in sorted(inputs.items()))
    (out / "run").write_text(f"{spec.model_dump_json()}\n{text}")


def install() -> None:
    """Replace the real project, publishing and stages in this process."""
    project = types.ModuleType("umlbuild.project")
    for function in (plan_recipe, read_recipe):
        setattr(project, function.__name__, function)
    sys.modules["umlbuild.project"] = project
    publishing = types.ModuleType("umlbuild.host.publish")
    publishing.publish = publish  # type: ignore[attr-defined]
    publishing.is_same = is_same  # type: ignore[attr-defined]
    publishing.SUMS = "SHA256SUMS"  # type: ignore[attr-defined]
    sys.modules["umlbuild.host.publish"] = publishing
    for name in ("fake_kernel", "fake_rootfs", "fake_image", "fake_bundle"):
        stage = types.ModuleType(f"umlbuild.stages.{name}")
        stage.run = run_stage  # type: ignore[attr-defined]
        sys.modules[stage.__name__] = stage


DODO = """
import fakeworld
fakeworld.install()
from umlbuild.tasks import *
from umlbuild.tasks.config import ALONE
DOIT_CONFIG = {**DOIT_CONFIG, **ALONE}
"""

MAIN = """
import sys
import fakeworld
fakeworld.install()
from umlbuild.tasks import main
sys.exit(main(sys.argv[1:]))
"""


class World:
    """A project directory with a dodo.py."""

    def __init__(self, directory: Path, dodo: str = DODO) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ran_file = directory / "ran"
        if dodo:
            (directory / "dodo.py").write_text(dodo)

    def recipe(self, name: str, **keys: str | bool) -> Path:
        path = self.directory / f"{name}.toml"
        lines = [f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n"
                 for key, value in {"name": name, **keys}.items()]  # fmt: skip
        path.write_text("format = 1\n" + "".join(lines))
        return path

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("UMLBUILD_", "DOIT_", "NO_COLOR"))}
        env["PYTHONPATH"] = f"{HERE}:{ROOT}"
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        env["FAKE_RAN"] = str(self.ran_file)
        return {**env, **(extra or {})}

    def start(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        argv: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*(argv or [sys.executable, os.fspath(DOIT)]), *words],
            cwd=cwd or self.directory, env=self.environment(env), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def doit(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        argv: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> Result:
        process = self.start(*words, env=env, argv=argv, cwd=cwd)
        out, err = process.communicate(timeout=60)
        return Result(process.returncode, out, err)

    def ran(self) -> list[str]:
        """The stages that ran, since the last question."""
        if not self.ran_file.exists():
            return []
        lines = self.ran_file.read_text().split()
        self.ran_file.unlink()
        return sorted(lines)

    def wait_until_ran(self, stage: str, timeout_s: float = 20) -> None:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self.ran_file.exists() and stage in self.ran_file.read_text():
                return
            time.sleep(0.02)
        raise AssertionError(f"{stage} did not start in {timeout_s} s")

    def entries(self, stage: str) -> list[Path]:
        return [path for path in sorted((self.directory / "cache" / stage).glob("*")) if path.name[0] != "."]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str
