"""The shipped recipes, built as a user builds them and really used."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import bundles
import pytest

pytestmark = [pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800)]


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """A copy of recipes/: building writes locks beside them."""
    ignored = shutil.ignore_patterns("*.lock.toml")
    return Path(shutil.copytree(bundles.PROJECT / "recipes", tmp_path / "recipes", ignore=ignored))


def test_hello_gives_a_shell_on_the_terminal(recipes: Path, tmp_path: Path) -> None:
    """As a person sees it: start `run` on a terminal, type, power off."""
    bundle = bundles.build_file(recipes / "hello.toml", tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(bundle / "run", ["run", "--allow-root", "--ephemeral", "--timeout", "120"])
    try:
        wait_for(terminal, "hello:~#", 60)
        os.write(terminal, b"echo $((6*7))-$(uname -s)\n")
        wait_for(terminal, "42-Linux", 20)
        os.write(terminal, b"busybox poweroff\n")
        wait_for(terminal, None, 60)
    finally:
        status = reap(pid)
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_second_build_does_nothing_and_an_edit_rebuilds_only_what_follows(
    recipes: Path, tmp_path: Path
) -> None:
    bundles.build_file(recipes / "hello.toml", tmp_path)
    assert stages_built(recipes, tmp_path) == set()
    recipe = recipes / "hello.toml"
    recipe.write_text(recipe.read_text().replace("[rootfs]\n", f'[rootfs]\nhostname = "h{time.time_ns()}"\n', 1))
    assert stages_built(recipes, tmp_path) == {"configuration", "ext4 image", "bundle"}
    assert stages_built(recipes, tmp_path) == set()


def stages_built(recipes: Path, project: Path) -> set[str]:
    """What a build of hello says it does."""
    text = bundles.output_of_build(recipes / "hello.toml", project)
    return {re.sub(r" (of )?hello$", "", line.split(":")[0]) for line in text.splitlines() if ": done" in line}


def wait_for(terminal: int, text: str | None, timeout_s: float) -> None:
    """Read until `text` comes, or (None) until the terminal is closed."""
    deadline, seen = time.monotonic() + timeout_s, ""
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            block = os.read(terminal, 65536)
        except OSError:
            block = b""
        seen += block.decode(errors="replace")
        if text is not None and text in seen:
            return
        if not block:
            if text is None:
                return
            break
    pytest.fail(f"{text!r} did not come: {seen[-2000:]}")


def reap(pid: int) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.1)
    os.kill(pid, 9)
    return os.waitpid(pid, 0)[1]


def test_a_plain_users_project_can_use_the_tasks(tmp_path: Path) -> None:
    """The two lines of the README, next to a task of that project's own."""
    (tmp_path / "dodo.py").write_text(
        "from umlbuild.tasks import *\n\ndef task_mine():\n    return {'actions': ['echo mine']}\n"
    )
    doit = bundles.PROJECT / ".venv" / "bin" / "doit"
    program = str(doit) if doit.exists() else shutil.which("doit") or "doit"
    done = subprocess.run([program, "list"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "build" in done.stdout and "mine" in done.stdout, done
