"""`./doit`: sets up .venv once, repairs it, and hands everything on. With a Python that only pretends."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Behaves as Python as far as ./doit asks: `-c` succeeds, `-m venv` makes one, `-m pip` takes its time.
PYTHON = """#!/bin/sh
case "$1 $2" in
"-c "*) exit "${FAKE_C_STATUS-0}" ;;
"-m venv")
    echo venv >>"$FAKE_LOG"
    mkdir -p "$4/bin"
    cp -- "$0" "$4/bin/python"
    : >"$4/bin/doit"
    ;;
"-m compileall") ;;
"-m pip")
    echo "pip $*" >>"$FAKE_LOG"
    [ -z "${FAKE_PIP_HANGS-}" ] || { : >"$FAKE_LOG.hangs"; sleep 30; }
    sleep 0.2
    exit "${FAKE_PIP_STATUS-0}"
    ;;
*)
    shift
    printf '<%s>' "$@"
    printf ' in %s dodo=%s may=%s\\n' "$(pwd)" "${DOIT_FILE-}" "${UMLBUILD_MAY_INSTALL-}"
    exit "${FAKE_DOIT_STATUS-0}"
    ;;
esac
"""


class Clone:
    def __init__(self, tmp_path: Path) -> None:
        self.home = tmp_path / "a clone"
        self.home.mkdir()
        shutil.copy(ROOT / "doit", self.home / "doit")
        (self.home / "pyproject.toml").write_text("[project]\n")
        (self.home / "dodo.py").write_text("")
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        (self.bin / "python3").write_text(PYTHON)
        (self.bin / "python3").chmod(0o755)
        for name in ("apt-get", "sudo"):
            (self.bin / name).write_text('#!/bin/sh\necho "$0 $*" >>"$FAKE_LOG"\nexit 1\n')
            (self.bin / name).chmod(0o755)
        self.log_file = tmp_path / "log"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "FAKE_LOG": str(self.log_file),
            **(extra or {}),
        }

    def run(
        self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, program: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program or self.home / "doit", *words], cwd=cwd or self.home, env=self.environment(env),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def log(self) -> list[str]:
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        self.log_file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_sets_up_once_and_hands_on(clone: Clone) -> None:
    first = clone.run("build", "recipe=a b.toml", "-n", "2")
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"<build><recipe=a b.toml><-n><2> in {clone.home} dodo= may=1\n"
    log = clone.log()
    assert log[0] == "venv"
    assert log[1].endswith(f"-e {clone.home}")
    second = clone.run("list")
    assert (second.stdout[:6], second.stderr, clone.log()) == ("<list>", "", [])


def test_exit_code_is_doits(clone: Clone) -> None:
    assert clone.run("build", env={"FAKE_DOIT_STATUS": "143"}).returncode == 143


def test_check_brings_the_test_tools_once(clone: Clone) -> None:
    clone.run("list")
    clone.log()
    clone.run("check")
    assert clone.log()[0].endswith(f"-e {clone.home}[test]")
    clone.run("check")
    clone.run("list")
    assert clone.log() == []


def test_changed_pyproject_is_installed_again(clone: Clone) -> None:
    clone.run("list")
    clone.log()
    (clone.home / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    clone.run("list")
    assert [line.split()[0] for line in clone.log()] == ["pip"]
    clone.run("list")
    assert clone.log() == []


@pytest.mark.parametrize("damage", ["busy", "no python", "moved"])
def test_half_made_or_moved_is_made_anew(clone: Clone, damage: str) -> None:
    clone.run("list")
    clone.log()
    venv = clone.home / ".venv"
    (venv / "junk").touch()
    if damage == "busy":
        (venv / "umlbuild-busy").touch()
        (venv / "umlbuild-installed").unlink()
    if damage == "no python":
        (venv / "bin/python").unlink()
    if damage == "moved":
        clone.home = clone.home.rename(clone.home.with_name("moved"))
    result = clone.run("list")
    assert result.returncode == 0
    assert [line.split()[0] for line in clone.log()] == ["venv", "pip"]
    assert not (clone.home / ".venv/junk").exists()
    clone.run("list")
    assert clone.log() == []


def test_killed_while_setting_up_then_repaired(clone: Clone) -> None:
    env = clone.environment({"FAKE_PIP_HANGS": "1"})
    half = subprocess.Popen([clone.home / "doit", "list"], env=env, start_new_session=True)
    end = time.monotonic() + 20
    while not clone.log_file.with_name("log.hangs").exists() and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(half.pid, 9)
    half.wait(timeout=10)
    clone.log()
    assert clone.run("list").returncode == 0
    assert [line.split()[0] for line in clone.log()] == ["venv", "pip"]


def test_failed_installation_is_said_and_tried_again(clone: Clone) -> None:
    failed = clone.run("list", env={"FAKE_PIP_STATUS": "1"})
    assert failed.returncode == 2
    assert "pip could not install the project" in failed.stderr
    assert failed.stdout == ""
    assert clone.run("list").returncode == 0


def test_several_at_once_set_up_once(clone: Clone) -> None:
    running = [
        subprocess.Popen([clone.home / "doit", "list"], env=clone.environment(), stdout=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert [one.wait(timeout=60) for one in running] == [0, 0, 0, 0]
    assert [line.split()[0] for line in clone.log()] == ["venv", "pip"]


def test_from_elsewhere_by_link_and_from_path(clone: Clone, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to("../a clone/doit")
    expected = f"<build> in {elsewhere} dodo={clone.home}/dodo.py may=1\n"
    assert clone.run("build", cwd=elsewhere).stdout == expected
    assert clone.run("build", cwd=elsewhere, program="./link").stdout == expected
    (elsewhere / "dodo.py").write_text("")
    assert "dodo= " in clone.run("build", cwd=elsewhere).stdout
    assert "may=0" in clone.run("build", env={"UMLBUILD_MAY_INSTALL": "0"}).stdout


def test_without_python_one_line_says_what_to_install(clone: Clone, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "readlink", "cmp", "id", "flock", "cat", "rm", "mkdir", "env"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    (clone.bin / "python3").unlink()
    script = (clone.home / "doit").read_text().replace("/usr/bin/python3", "/nonexistent/python3")
    (clone.home / "doit").write_text(script)
    (clone.bin / "id").write_text("#!/bin/sh\necho 1000\n")
    (clone.bin / "id").chmod(0o755)
    result = clone.run("list", env={"PATH": f"{clone.bin}:{tools}"})
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "fix: sudo apt-get install python3 python3-venv" in result.stderr
    assert [line.rsplit("/", 1)[1] for line in clone.log()] == [
        "sudo -n true"
    ]  # asked, and never with a password
    assert not (clone.home / ".venv").exists()


def test_overhead_is_small(clone: Clone) -> None:
    clone.run("list")
    took = []
    for _ in range(5):
        begin = time.monotonic()
        clone.run("list")
        took.append(time.monotonic() - begin)
    assert min(took) < 0.25  # about 0.01 on an idle machine
