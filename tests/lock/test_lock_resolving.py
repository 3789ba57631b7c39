"""A lock through its life: written, kept, loosened, updated, refused; by the command line, with the real apt."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lockkit import World
from rootfskit import make_deb, served
from test_plan_keys import pin
from test_rootfs_apt import gnupg  # noqa: F401  # a fixture

from umlbuild.host.apt import Apt
from umlbuild.lock import Lock
from umlbuild.project import any_lock, read_recipe, write_lock
from umlbuild.resolving import resolved, with_base

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("apt-get", "dpkg-deb", "gpg", "dpkg-scanpackages")),
    reason="needs apt, dpkg-dev and gpg",
)


@pytest.fixture
def world(tmp_path: Path, gnupg: Path) -> Iterator[World]:  # noqa: F811
    site = tmp_path / "site"
    home = tmp_path / "home"
    home.mkdir()
    make_deb(site, "base", Essential="yes")
    kernel = ("user-mode-linux", "libc6", "libgcc-s1", "tcc")
    for name in ("apt", "e2fsprogs", "libarchive13t64", "libeatmydata1", *kernel, "tool", "other"):
        make_deb(site, name, "1.0", depends="helper" if name == "tool" else "")
    make_deb(site, "helper", "1.0")
    with served(site) as url:
        made = World(home, url, gnupg, site)
        made.publish()
        made.recipe(["tool"])
        yield made


def test_a_lock_through_its_life(world: World) -> None:
    code, said = world.umlbuild("build", "demo.toml", "--locked")
    assert code == 2 and "there is no demo.lock.toml" in said and "umlbuild lock demo.toml" in said

    code, said = world.umlbuild("lock", "demo.toml")
    assert code == 0 and "rootfs: + tool 1.0" in said and "tools: + e2fsprogs 1.0" in said
    first = world.lock()
    assert world.base() == ["apt", "base"]
    assert world.versions() == dict.fromkeys(["apt", "base", "helper", "tool"], "1.0")
    assert {pin.suite for _, pins in first.parts() for pin in pins} == {"stone", "trixie"}
    assert {(r.suite, r.date) for r in first.release} >= {("stone", "2022-01-01T00:00:00Z")}
    assert world.umlbuild("lock", "demo.toml") == (0, "demo.lock.toml is up to date\n")

    # A newer archive changes nothing, and one package more leaves the others as they are.
    for name in ("tool", "helper", "base", "e2fsprogs"):
        world.add(name, "2.0", depends="helper" if name == "tool" else "")
    world.publish()
    assert world.umlbuild("lock", "demo.toml") == (0, "demo.lock.toml is up to date\n")
    world.recipe(["tool", "other"])
    code, said = world.umlbuild("build", "demo.toml", "locked=1")
    assert code == 2 and "rootfs.packages: the lock does not answer other" in said
    code, said = world.umlbuild("lock", "demo.toml")
    assert "1 changes" in said and "rootfs: + other 1.0" in said
    assert world.versions()["tool"] == world.versions()["helper"] == "1.0"
    assert world.base() == ["apt", "base"]

    # What cannot be kept is let go, and nothing else.
    world.add("needy", "1.0", depends="tool (>= 2.0)")
    world.publish()
    world.recipe(["tool", "other", "needy"])
    code, said = world.umlbuild("lock", "demo.toml")
    assert code == 0 and "cannot keep tool" in said and "rootfs: tool 1.0 -> 2.0" in said
    assert world.versions() | {"base": "1.0", "helper": "1.0", "tool": "2.0"} == world.versions()

    # A version that the archive has dropped; a hand-picked update; an unknown name; everything.
    world.drop("other", "1.0")
    world.add("other", "1.1")
    world.publish()
    code, said = world.umlbuild("lock", "demo.toml", "--update", "helper")
    assert code == 0 and "rootfs: helper 1.0 -> 2.0" in said and "rootfs: other 1.0 -> 1.1" in said
    assert world.versions()["base"] == "1.0"
    code, said = world.umlbuild("lock", "demo.toml", "--update", "helpr")
    assert code == 2 and "helpr: the lock has no such package; did you mean helper" in said
    code, said = world.umlbuild("lock", "demo.toml", "--update")
    assert "rootfs: base 1.0 -> 2.0" in said and "tools: e2fsprogs 1.0 -> 2.0" in said

    # A lock of an older format is refused by a build, and replaced by `lock`.
    (world.home / "demo.lock.toml").write_text('format = 1\nasked = "0123"\n')
    code, said = world.umlbuild("build", "demo.toml")
    assert code == 2 and "is a lock of format 1" in said and "fix: umlbuild lock demo.toml" in said
    code, said = world.umlbuild("lock", "demo.toml")
    assert code == 0 and "rootfs: + tool 2.0" in said


def test_packages_and_changes_are_counted_in_one_way(world: World) -> None:
    """One package stands in two parts of this lock."""
    world.recipe(["tool", "e2fsprogs"])
    code, said = world.umlbuild("lock", "demo.toml")
    *_, last = said.splitlines()
    lines = re.findall(r"^\w+: \+ ", said, re.MULTILINE)
    assert (code, last) == (0, f"demo.lock.toml: {len(lines)} packages, {len(lines)} changes")


def test_a_base_is_asked_for_again_only_if_it_cannot_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    resolve = Apt.resolve

    def counting(apt: Apt, suite: str, variant: str, packages: Sequence[str] = (), *rest: Any, **more: Any) -> Any:
        asked.append(tuple(packages))
        return resolve(apt, suite, variant, packages, *rest, **more)

    monkeypatch.setattr(Apt, "resolve", counting)
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)

    def locked(*packages: str) -> Lock:
        world.recipe(packages)
        path = world.home / "demo.toml"
        old = any_lock(path)
        lock = resolved(read_recipe(path), cache=world.home / "cache", note=lambda _text: None, old=old)
        write_lock(path, lock)
        return lock

    locked("tool")
    assert len(asked) == 2
    kept = locked("tool", "other")
    assert asked[2:] == [("other", "tool")] and world.base() == ["apt", "base"]
    (world.home / "demo.lock.toml").unlink()
    assert locked("tool", "other") == kept, "as from nothing"
    family = ("trixie", "trixie-updates", "trixie-security")
    old = [release for release in kept.release if release.suite in family]
    assert sorted(release.suite for release in old) == sorted(family)

    world.add("base", "2.0")
    world.add("modern", "1.0", depends="base (>= 2.0)")
    world.publish()
    asked.clear()
    locked("tool", "modern")
    assert world.versions()["base"] == "2.0" and world.base() == ["apt", "base"] and len(asked) == 2
    now = world.lock().release
    assert [release for release in now if release.suite in family] == old, "the tools were kept"
    assert len({release.sha256 for release in now if release.suite == "stone"} - {r.sha256 for r in kept.release}) == 1


def test_offline_nothing_is_resolved_and_the_first_missing_package_is_named(world: World) -> None:
    code, said = world.umlbuild("lock", "demo.toml", UMLBUILD_OFFLINE="1")
    assert code == 1 and "resolving packages: needs the network, and this build is offline" in said
    assert world.umlbuild("lock", "demo.toml")[0] == 0
    code, said = world.umlbuild("rootfs", "demo.toml", "--offline")
    assert code == 1
    assert re.search(r"\w+ 1\.0 is not among the downloads of this cache; fetching it: needs the network", said)
    assert "umlbuild vendor" in said
    code, said = world.umlbuild("build", "demo.toml", "offline=maybe")
    assert code == 2 and "offline=maybe: not 0 or 1" in said


def test_vendor_has_every_download(world: World) -> None:
    code, said = world.umlbuild("vendor", "demo.toml", "there")
    assert code == 0 and "cd there && umlbuild build demo.toml --locked --offline" in said
    there = world.home / "there"
    kept = {path.name for path in there.glob("cache/downloads/*/*")}
    assert kept == {f"{pin.sha256}.deb" for pin in world.lock().pins()}
    assert (there / "demo.lock.toml").read_bytes() == (world.home / "demo.lock.toml").read_bytes()
    code, said = world.umlbuild("vendor", "demo.toml", "there")
    assert code == 2 and "is there already" in said


def test_a_base_is_marked_only_if_the_root_holds_all_of_it() -> None:
    base, more = [pin("awk"), pin("bash")], pin("vim")
    assert [p.base for p in with_base([*base, more], base)] == [True, True, None]
    for other in ([pin("bash"), more], [pin("awk", "2.0").model_copy(update={"sha256": "cd" * 32}), pin("bash"), more]):
        assert [p.base for p in with_base(other, base)] == [None] * len(other)
    assert [p.base for p in with_base([p.model_copy(update={"base": True}) for p in base], [more])] == [None, None]
