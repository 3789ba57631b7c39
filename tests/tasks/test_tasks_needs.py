"""What the host must have: missing things are said all at once, or installed where that is allowed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from umlbuild.errors import HostError
from umlbuild.host import needs, process
from umlbuild.specs.kernel import KernelSpec
from umlbuild.specs.rootfs import Method, RootfsSpec

ROOTFS = RootfsSpec(
    bootstrap="debootstrap",
    method=Method(makes="tree", argv=("debootstrap",)),
    suite="bookworm",
    architecture="amd64",
    variant="minbase",
    include=(),
)


def ignore(_text: str) -> None:
    """A note that nobody reads."""


@pytest.fixture
def path_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a PATH with only the programs that a test names; each is a shell script."""

    def make(**programs: str) -> Path:
        for name, text in programs.items():
            program = tmp_path / name.replace("_", "-")
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        real = {name: process.find(name) for name in ("setpriv", "env", "sh")}
        for name, where in real.items():
            if where and not (tmp_path / name).exists():
                (tmp_path / name).symlink_to(where)
        monkeypatch.setenv("PATH", str(tmp_path))
        path = str(tmp_path)
        monkeypatch.setattr(process, "environment", lambda extra=None: {"PATH": path, **(extra or {})})
        return tmp_path

    return make


def test_every_program_of_a_stage_has_a_package() -> None:
    programs = {program for stage in needs.STAGES.values() for program in stage} | set(needs.TESTS)
    assert programs - set(needs.PACKAGES) == set()


def test_what_is_there_is_not_missing() -> None:
    assert needs.missing(["setpriv", "tar", "/usr"]) == []
    assert needs.missing(["no-such-program", "/usr/include/no-such-header.h"]) == [
        "/usr/include/no-such-header.h", "no-such-program",
    ]  # fmt: skip


def test_programs_depend_on_spec_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert {"debootstrap", "newuidmap"} <= set(needs.programs_of(ROOTFS))
    assert "mmdebstrap" not in needs.programs_of(ROOTFS)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "newuidmap" not in needs.programs_of(ROOTFS)


def test_all_that_is_missing_is_said_at_once(
    path_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path_of(make="")
    monkeypatch.delenv(needs.MAY_INSTALL, raising=False)
    with pytest.raises(HostError) as caught:
        needs.require_for([KernelSpec(tree=None), ROOTFS], tmp_path / "cache", ignore)
    assert "this machine lacks bc, bison, " in caught.value.message
    words = caught.value.hint.split()
    assert words[:3] == ["sudo", "apt-get", "install"]
    assert words[3:] == sorted(words[3:])
    assert {"debootstrap", "flex", "kmod", "binutils"} <= set(words)
    assert "make" not in words
    assert caught.value.exit_code == 2


def test_installs_where_it_may(
    path_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    path_of(
        apt_get=f'echo "$DEBIAN_FRONTEND $*" >>{asked}\n'
        f'case "$*" in *update*) : >{asked}.updated ;; *install*) [ -e {asked}.updated ] || exit 100;\n'
        f"printf '#!/bin/sh\\n' >{tmp_path}/bc; /bin/chmod 755 {tmp_path}/bc ;; esac",
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv(needs.MAY_INSTALL, "1")
    notes: list[str] = []
    assert needs.require(["bc"], notes.append) is True
    assert notes == ["installing Debian packages: bc"]
    lines = asked.read_text().splitlines()
    assert [line.split()[-2:] for line in lines] == [["install", "bc"], [lines[1].split()[-2], "update"],
                                                     ["install", "bc"]]  # fmt: skip
    assert all(line.startswith("noninteractive ") and "--no-install-recommends" in line for line in lines)
    assert needs.require(["bc"], notes.append) is False


def test_failing_apt_is_a_host_error_with_its_words(
    path_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path_of(apt_get="echo E: no space; exit 100")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv(needs.MAY_INSTALL, "1")
    with pytest.raises(HostError, match=r"apt-get failed: exit status 100\n(.*\n)*.*\| E: no space"):
        needs.require(["bc"], ignore)


@pytest.mark.parametrize(
    ("user", "sudo", "allowed", "expected"),
    [
        (0, None, "1", True),
        (0, None, "", False),
        (1000, "exit 0", "1", True),
        (1000, "exit 1", "1", False),
        (1000, None, "1", False),
    ],
)
def test_may_install(  # noqa: PLR0917
    path_of: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    sudo: str | None,
    allowed: str,
    expected: bool,
) -> None:
    path_of(apt_get="", **({"sudo": sudo} if sudo else {}))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv(needs.MAY_INSTALL, allowed)
    assert needs.may_install() is expected


def test_too_little_room_is_said_before_the_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage)
    with pytest.raises(HostError, match=r"1 MB are free, but these steps need about 400 MB") as caught:
        needs.require_for([KernelSpec(tree=None)], tmp_path / "not" / "made", ignore)
    assert "UMLBUILD_CACHE" in caught.value.hint
