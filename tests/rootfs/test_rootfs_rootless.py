"""Which way a user can make owners, and the one-line fix for what is missing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from umlbuild.host import process, rootless
from umlbuild.host.rootless import free_range, owners, subordinate_ids

SUBUID = "a:100000:65536\n1001:165536:65536\nc:300000:1000\nbroken\n\n"


@pytest.mark.parametrize(
    ("name", "uid", "count"), [("a", 5, 65536), ("b", 1001, 65536), ("c", 5, 1000), ("d", 5, 0), ("broken", 5, 0)]
)
def test_subordinate_ids(name: str, uid: int, count: int) -> None:
    assert subordinate_ids(SUBUID, name, uid) == count


@pytest.mark.parametrize(("texts", "free"), [([""], "100000-165535"), ([SUBUID, "z:400000:65536"], "465536-531071")])
def test_the_fix_names_ids_that_nobody_has(texts: list[str], free: str) -> None:
    assert free_range(texts) == free


def test_a_user_without_ids_is_told_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find", lambda program: f"/usr/bin/{program}")
    (tmp_path / "subuid").write_text("other:100000:65536\n")
    missing = rootless._missing_ids("me", 1001, tmp_path)
    assert missing is not None
    assert missing.hint == "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 me"
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("me:165536:65536\n")
    assert rootless._missing_ids("me", 1001, tmp_path) is None


def test_a_host_without_newuidmap_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    monkeypatch.setattr(process, "find", lambda _program: None)
    missing = rootless._lack_of_programs()
    assert missing is not None
    assert missing.hint == "sudo apt-get install uidmap"


@pytest.mark.parametrize(
    ("maps", "count"),
    [
        (("0 0 4294967295\n", "0 0 4294967295\n"), 4294967295),
        (("0 1000 1\n1 100000 65536\n", "0 1000 1\n"), 1),
    ],
)
def test_mapped_ids(maps: tuple[str, str], count: int) -> None:
    assert rootless.mapped_ids(*maps) == count


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ],
)
def test_forbidden_namespaces_name_the_setting(tmp_path: Path, name: str, value: str, hint: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(f"{value}\n")
    assert rootless._forbidden(tmp_path).hint == f"sudo sysctl -w {hint}"


def test_the_prefix_really_makes_a_root_with_many_ids(tmp_path: Path) -> None:
    found = owners()
    if found.missing is not None:
        pytest.skip(found.missing.message)
    file = tmp_path / "f"
    script = f"touch {file} && chown 33:42 {file} && stat -c %u:%g {file} && id -u && rm {file}"
    out = process.output([*found.prefix(), "sh", "-c", script])
    assert out.split() == ["33:42", "0"]
    interfaces = process.output([*found.prefix(), "cat", "/proc/net/dev"])
    assert re.findall(r"^\s*(\w+):", interfaces, re.MULTILINE) == ["lo"], "there is no network"
