"""The linters as tests: style, types, shell scripts, who may import whom, and what no file may hold."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "umlbuild"

PURE = ("errors", "digest", "kconfig*", "bpf")
LAYERS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "digest": ("errors",),
    "kconfig*": PURE,
    "bpf": ("bpf",),
    "specs": ("digest", "specs"),
    "kinds": (*PURE, "specs", "kinds"),
    "recipe": (*PURE, "specs", "kinds", "recipe"),
    "finding": ("errors",),
    "lock": (*PURE, "specs", "kinds", "recipe", "lock"),
    "plan": (*PURE, "specs", "kinds", "recipe", "lock", "plan", "launcher"),
    "launcher": (),
    "host": (*PURE, "specs", "host"),
    "stages": (*PURE, "specs", "kinds.size", "host", "stages.context"),
    "runtime": (*PURE, "specs", "host", "runtime"),
    "attack": (*PURE, "host", "runtime", "attack"),
    "resolving": (*PURE, "specs", "kinds", "recipe", "lock", "plan", "host"),
    "project": (*PURE, "specs", "kinds", "recipe", "lock", "plan", "host", "resolving", "project"),
    "vendor": (*PURE, "specs", "recipe", "lock", "plan", "host", "project"),
    "tasks": (*PURE, "specs", "plan", "stages", "host", "finding", "project", "tasks"),
}
"""Room → what it may import of umlbuild; a room that is not here (the command line's) may import all."""

OUTSIDE = {
    "doit": ("tasks",),
    "requests": ("host.fetch",),
    "subprocess": ("host.process", "runtime", "attack"),
    "pytest": (),
}
"""A module of others → the only rooms that may import it."""

MAX_LINES = 500
LONGER = {"umlbuild/launcher/run.sh": 700}


def tracked(pattern: str = "") -> list[Path]:
    """The files that are, or will be, in the repository."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
        ).stdout.split("\0")  # fmt: skip
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        skip = {".venv", "cache", "dist", "__pycache__"}
        listed = [
            str(path.relative_to(ROOT)) for path in ROOT.rglob("*")
            if not any(part in skip or part.endswith(("_cache", ".egg-info")) for part in path.parts)
        ]  # fmt: skip
    paths = (ROOT / name for name in listed if name)
    return sorted(path for path in paths if path.is_file() and re.search(pattern, path.name))


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def lint(*argv: str) -> None:
    """Run a linter; what it complains about is the test's failure, whole."""
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


def test_ruff() -> None:
    lint(sys.executable, "-m", "ruff", "check", "--output-format=concise", ".")


def test_mypy() -> None:
    lint(sys.executable, "-m", "mypy", "umlbuild", "benchmarks", "dodo.py")


TEST_FOLDERS = sorted({path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")})


@pytest.mark.parametrize("folder", TEST_FOLDERS)
def test_mypy_of_tests(folder: str) -> None:
    # Each folder by itself: several have a conftest.py, which mypy takes for one module.
    lint(sys.executable, "-m", "mypy", *(str(path) for path in sorted((ROOT / folder).glob("*.py"))))


def shell_scripts() -> list[Path]:
    found: list[Path] = []
    for path in tracked():
        launcher = PACKAGE / "launcher"
        parts = [launcher / name for name in ("sandboxes", "filters", "disks", "limits", "checks", "uplinks")]
        if path == launcher / "run.sh" or path.parent in parts:
            continue  # parts of one text, which tests/launcher checks as a whole
        if path.suffix == ".sh" or path.read_bytes()[:40].split(b"\n")[0] in (
            b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash",
        ):  # fmt: skip
            found.append(path)
    return found


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck() -> None:
    scripts = [str(path) for path in shell_scripts()]
    assert {Path(path).name for path in scripts} >= {"doit", "run", "agent.sh"}
    lint("shellcheck", *scripts)


def room_of(module: str) -> str:
    """`umlbuild.host.store` → `host.store`."""
    return module.removeprefix("umlbuild").lstrip(".")


def matches(room: str, patterns: tuple[str, ...]) -> bool:
    return any(
        room == pattern or room.startswith(f"{pattern}.")
        or (pattern.endswith("*") and room.startswith(pattern[:-1]))
        for pattern in patterns
    )  # fmt: skip


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, also the late ones; `from x import y` counts as x.y if that is one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                file = ROOT / whole.replace(".", "/")
                is_module = file.is_dir() or file.with_suffix(".py").is_file()
                yield node.lineno, whole if is_module else str(node.module)


def modules() -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def wrong_imports(room: str, path: Path) -> Iterator[str]:
    """What a module of a room imports and may not."""
    layer = next((name for name in LAYERS if matches(room, (name,))), None)
    for line, module in imports_of(path):
        top = module.partition(".")[0]
        if top == "umlbuild" and layer is not None and room_of(module):
            if not matches(room_of(module), (*LAYERS[layer], room)):
                yield f"{path.name}:{line}: {layer} may not import {module}"
        elif top in OUTSIDE and not matches(room, OUTSIDE[top]):
            yield f"{path.name}:{line}: {room} may not import {top}"


def test_layers() -> None:
    assert [f"{room}: {wrong}" for room, path in modules() for wrong in wrong_imports(room, path)] == []


@pytest.mark.parametrize(
    ("room", "line", "allowed"),
    [
        ("stages.kernel", "from umlbuild.host import store", True),
        ("stages.kernel", "from umlbuild.stages.context import Context", True),
        ("stages.kernel", "from umlbuild.stages import image", False),
        ("stages.kernel", "from umlbuild.recipe import Recipe", False),
        ("stages.kernel", "import doit", False),
        ("kinds.images.ext4", "from umlbuild.host import process", False),
        ("kinds.images.ext4", "from umlbuild.kconfig import merge", True),
        ("plan.kernel", "def late():\n    import umlbuild.host.store", False),
        ("host.apt", "import subprocess", False),
        ("host.process", "import subprocess", True),
        ("tasks.action", "from doit.action import BaseAction", True),
        ("cli", "from umlbuild.tasks import main", True),
        ("launcher", "from umlbuild import errors", False),
    ],
)
def test_layer_rules_can_fail(tmp_path: Path, room: str, line: str, allowed: bool) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    assert (list(wrong_imports(room, path)) == []) is allowed


def test_every_stage_with_a_spec_is_known_to_needs() -> None:
    from umlbuild.host import needs

    stages = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {"__init__", "context"}
    assert stages - set(needs.STAGES) == set()


def test_no_host_of_a_registry_and_no_path_of_a_machine() -> None:
    # Spelled in pieces, so that this file does not hold what it looks for.
    debian = [f"{name}.debian" + ".org" for name in ("deb", "security", "snapshot", "ftp", "archive")]
    hosts = [*debian, "pypi" + ".org", "files.python" + "hosted.org", "registry.npm" + "js.org"]
    paths = ["/work/" + "main", "/work/" + "shared", "/tmp/" + "bash_jobs"]
    wrong = [
        f"{path}: {word}" for path, text in texts() for word in (*hosts, *paths) if word in text
    ]  # fmt: skip
    assert wrong == []


def test_no_file_holds_two_nouns() -> None:
    long = [
        f"{path}: {len(text.splitlines())} lines"
        for path, text in texts()
        if (path.suffix in (".py", ".sh") or text.startswith("#!"))
        and len(text.splitlines()) > LONGER.get(str(path), MAX_LINES)
    ]
    assert long == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for _, path in modules()
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []
