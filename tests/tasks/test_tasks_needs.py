"""What the host must have: missing things are said all at once, or installed where that is allowed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from umlbuild.errors import HostError
from umlbuild.host import needs, process, rootless
from umlbuild.host.debian import release_of_host
from umlbuild.specs.kernel import KernelSpec
from umlbuild.specs.model import Spec
from umlbuild.specs.rootfs import ConfigureSpec, Method, RootfsSpec, Script

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


HERE = ROOTFS.model_copy(
    update={
        "bootstrap": "mmdebstrap",
        "suite": release_of_host(),
        "method": Method(makes="tar", argv=("mmdebstrap",), fake_argv=("mmdebstrap",)),
    }
)
"""What can be pretended: of the host's own release."""
OTHER = HERE.model_copy(update={"suite": "forky"})
UNPACKED = ROOTFS.model_copy(update={"bootstrap": "extract", "method": Method(makes="unpacked")})
FILES = ConfigureSpec(init="busybox")
SCRIPTS = ConfigureSpec(init="busybox", scripts=(Script(content="#!/bin/sh\n"),))
IDS = {"newuidmap", "newgidmap"}
FAKE = {"fakechroot", "fakeroot"}
NO_IDS = HostError("me has no ids", "sudo usermod me")


@pytest.mark.parametrize(
    ("spec", "user", "obstacle", "needed", "not_needed"),
    [
        (HERE, 0, None, {"mmdebstrap", "unshare"}, IDS | FAKE | {"debootstrap"}),
        (HERE, 1000, None, {"mmdebstrap", "unshare"} | IDS, FAKE),
        (HERE, 1000, NO_IDS, {"mmdebstrap"} | FAKE, IDS | {"unshare"}),
        (HERE, 0, NO_IDS, FAKE, IDS),
        (OTHER, 1000, NO_IDS, IDS, FAKE),
        (ROOTFS, 1000, NO_IDS, {"debootstrap"} | IDS, FAKE | {"mmdebstrap"}),
        (UNPACKED, 1000, NO_IDS, {"dpkg-deb"}, IDS | FAKE | {"unshare"}),
        (FILES, 1000, NO_IDS, set(), IDS | FAKE | {"unshare", "bwrap"}),
        (SCRIPTS, 1000, None, {"bwrap", "tar"} | IDS, FAKE),
        (SCRIPTS, 0, None, {"bwrap", "tar", "unshare"}, IDS),
    ],
)
def test_programs_are_those_of_the_way_that_is_gone(  # noqa: PLR0917
    monkeypatch: pytest.MonkeyPatch, spec: Spec, user: int, obstacle: HostError | None,
    needed: set[str], not_needed: set[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(rootless, "obstacle", lambda: obstacle)
    programs = set(needs.programs_of(spec))
    assert needed <= programs and not (not_needed & programs)


@pytest.mark.parametrize(("spec", "told"), [(HERE, False), (UNPACKED, False), (FILES, False),
                                            (OTHER, True), (ROOTFS, True), (SCRIPTS, True)])  # fmt: skip
def test_an_obstacle_is_told_only_where_it_matters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spec: Spec, told: bool
) -> None:
    monkeypatch.setattr(rootless, "obstacle", lambda: NO_IDS)
    monkeypatch.setattr(needs, "_is_there", lambda _program: True)
    if not told:
        assert needs.require_for([spec], tmp_path, ignore) is False
        return
    with pytest.raises(HostError) as caught:
        needs.require_for([spec], tmp_path, ignore)
    assert (caught.value.message, caught.value.hint) == (NO_IDS.message, NO_IDS.hint)


def test_programs_ids_and_room_are_said_in_one_message(
    path_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Usage:
        free = 1_000_000

    path_of(dpkg_deb="", tar="", unshare="", debootstrap="", apt_get="exit 1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(rootless, "obstacle", lambda: NO_IDS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage)
    monkeypatch.setenv(needs.MAY_INSTALL, "1")  # what no package mends is told before any is installed
    with pytest.raises(HostError) as caught:
        needs.require_for([ROOTFS], tmp_path / "cache", ignore)
    first, *rest = caught.value.message.splitlines()
    assert first == "this machine lacks newgidmap, newuidmap"
    assert [line for line in rest if "MB are free" in line] and NO_IDS.message in rest
    assert caught.value.hint.startswith("sudo apt-get install uidmap && sudo usermod me; ")


def test_all_that_is_missing_is_said_at_once(
    path_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path_of(make="")
    monkeypatch.delenv(needs.MAY_INSTALL, raising=False)
    with pytest.raises(HostError) as caught:
        needs.require_for([KernelSpec(tree=None, xstate=""), ROOTFS], tmp_path / "cache", ignore)
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
        needs.require_for([KernelSpec(tree=None, xstate="")], tmp_path / "not" / "made", ignore)
    assert "UMLBUILD_CACHE" in caught.value.hint
