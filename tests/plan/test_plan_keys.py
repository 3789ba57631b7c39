"""Keys: golden, the same in every directory, and moved by exactly the steps that an edit concerns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from umlbuild.errors import LockError
from umlbuild.host.files import Files
from umlbuild.lock import Lock, Wishes
from umlbuild.lock import parse as parse_lock
from umlbuild.plan.bundle import Plan, plan_of
from umlbuild.plan.contributions import base_packages_of, packages_of
from umlbuild.plan.step import Step
from umlbuild.plan.wishes import wishes_of
from umlbuild.recipe.load import merged, parse
from umlbuild.specs.bundle import BundleSpec
from umlbuild.specs.packages import LockedDeb, PackagesSpec

GOLDEN = Path(__file__).parent / "golden-keys.json"

BASE: dict[str, Any] = {
    "format": 1,
    "name": "demo",
    "kernel": {"source": {"kind": "debian", "suite": "trixie-backports"}, "options": {"DUMMY": "m"}},
    "rootfs": {"packages": ["nftables"], "files": [{"path": "/etc/x", "source": "x"}]},
    "image": {"kind": "ext4", "size": "1G"},
    "launch": {"memory": "128M"},
}


def pin(name: str, version: str = "1.0-1", suite: str = "bookworm", base: bool | None = None) -> LockedDeb:
    path = f"pool/main/{name[0]}/{name}/{name}_{version}_amd64.deb"
    return LockedDeb(
        name=name, version=version, architecture="amd64", size=1000, sha256="ab" * 32, path=path, suite=suite,
        base=base,
    )  # fmt: skip


ASKED = Wishes(suite="bookworm", components=("main",), variant="minbase", packages=(), tools_suite="trixie", tools=())
LOCK = Lock(
    asked=ASKED,
    kernel=(pin("linux-source-7.3", "7.3.4-1"),),
    rootfs=(pin("bash", base=True), pin("nftables")),
    tools=(pin("e2fsprogs"),),
)


def identity(program: str) -> str:
    return f"{program} 1.0"


def plan(directory: Path, change: Mapping[str, Any] | None = None, lock: Lock = LOCK) -> Plan:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "x"
    if not file.exists():
        file.write_text("content\n")
    recipe = parse(merged(BASE, change or {}), "demo.toml")
    files = Files(directory, "demo.toml")
    made = plan_of(recipe, lock, files, identity, path=directory / "demo.toml", mirrors={})
    assert files.problems == []
    return made


def keys_of(made: Plan) -> dict[str, str]:
    return {f"{step.stage}: {step.label}": step.key for step in made.bundle.walk()}


def test_golden_keys(tmp_path: Path, update_golden: bool) -> None:
    """A key that moved means other bytes for the same recipe: intended? `pytest --update-golden`."""
    found = keys_of(plan(tmp_path))
    if update_golden:
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_two_directories_have_equal_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keys_of(plan(tmp_path / "a"))
    for name, value in (("TZ", "Asia/Tokyo"), ("LC_ALL", "de_DE.UTF-8"), ("USER", "bob"), ("HOME", "/x")):
        monkeypatch.setenv(name, value)
    assert keys_of(plan(tmp_path / "other" / "place")) == first


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"rootfs": {"hostname": "other"}}, {"configure", "edited_image", "bundle"}),
        ({"launch": {"memory": "256M"}}, {"bundle"}),
        ({"build": {"jobs": 9, "ccache": False, "distcc": True}}, set()),
        ({"image": {"size": "2G"}}, {"image", "edited_image", "bundle"}),
        ({"rootfs": {"remove": ["/srv"]}}, {"configure", "image", "edited_image", "bundle"}),
        ({"kernel": {"options": {"DUMMY": "m", "VETH": True}}},
         {"kernel_config", "kernel", "configure", "image", "edited_image", "bundle"}),
        ({"rootfs": {"users": [{"name": "root", "password_hash": "$y$j9T$abc"}]}},
         {"configure", "edited_image", "bundle"}),
        ({"rootfs": {"packages": ["nftables", "vim"]}}, {"rootfs", "configure", "image", "edited_image", "bundle"}),
        ({"rootfs": {"bootstrap": {"kind": "debootstrap"}}},
         {"packages", "rootfs", "configure", "image", "edited_image", "bundle"}),
        ({"network": [{"transport": {"kind": "tap", "ifname": "tap0"}}]},
         {"kernel_config", "kernel", "rootfs", "configure", "image", "edited_image", "bundle"}),
    ],
)  # fmt: skip
def test_an_edit_moves_only_its_steps(tmp_path: Path, change: dict[str, Any], moved: set[str]) -> None:
    def stages(made: Plan) -> dict[str, list[str]]:
        rows: dict[str, list[str]] = {}
        for step in made.bundle.walk():
            rows.setdefault(step.stage, []).append(step.key)
        return rows

    before, after = stages(plan(tmp_path)), stages(plan(tmp_path, change))
    assert {stage for stage in after if before.get(stage) != after[stage]} == moved


@pytest.mark.parametrize(
    "change",
    [
        {"image": {"kind": "squashfs"}},
        {"rootfs": {"run": [{"content": "#!/bin/sh\n"}]}},
        {"rootfs": {"locale": "de_DE.UTF-8"}},
    ],
)
def test_what_cannot_be_edited_is_written_whole(tmp_path: Path, change: dict[str, Any]) -> None:
    made = plan(tmp_path, change)
    image = made.parts["image"]
    assert image.stage == "image"
    assert image.inputs["root"].key == made.parts["rootfs"].key


def test_an_automatic_size_leaves_room_for_what_is_put_in(tmp_path: Path) -> None:
    """In steps, so that a longer file does not make the image below anew."""

    def below(content: str) -> Any:
        files = {"rootfs": {"files": [{"path": "/srv/f", "content": content}]}, "image": {"size": "auto"}}
        return plan(tmp_path, files).parts["image"].inputs["image"]

    little, more, much = below("x"), below("x" * 5000), below("x" * (5 << 20))
    assert little.key == more.key != much.key
    assert little.spec.room == 4 << 20 and much.spec.room == 8 << 20
    assert little.spec.inodes >= 16


def roots_of(made: Plan) -> dict[str, Step]:
    """Label → step, of those that install packages."""
    return {step.label: step for step in made.bundle.walk() if step.stage == "rootfs"}


BASE_LABEL, OVER, AT_ONCE = (
    f"{label}" for label in ("base of bookworm (minbase, mmdebstrap)", "root file system of bookworm (over its base)",
                             "root file system of bookworm (mmdebstrap, all at once)")
)  # fmt: skip


def test_one_package_more_keeps_the_base(tmp_path: Path) -> None:
    before, other = roots_of(plan(tmp_path)), LOCK.model_copy(update={"rootfs": (*LOCK.rootfs, pin("vim"))})
    after = roots_of(plan(tmp_path, {"rootfs": {"packages": ["nftables", "vim"]}}, other))
    assert set(before) == set(after) == {BASE_LABEL, OVER}
    assert before[BASE_LABEL].key == after[BASE_LABEL].key
    assert before[OVER].key != after[OVER].key
    below, above = (after[label].inputs["packages"].spec for label in (BASE_LABEL, OVER))
    assert isinstance(below, PackagesSpec) and isinstance(above, PackagesSpec)
    assert [pin.name for pin in below.pins] == ["bash"] and [pin.name for pin in above.pins] == ["nftables", "vim"]
    assert after[OVER].inputs["base"].key == after[BASE_LABEL].key


def test_what_the_init_brings_is_of_the_base_and_what_is_named_is_not() -> None:
    named = parse(dict(BASE), "demo.toml")
    assert set(packages_of(named)) - set(base_packages_of(named)) == {"nftables"}
    assert "systemd-sysv" in base_packages_of(named)
    alone = parse(merged(BASE, {"rootfs": {"packages": []}}), "demo.toml")
    assert packages_of(alone) == base_packages_of(alone) == base_packages_of(named)


def test_a_newer_package_of_the_base_moves_both(tmp_path: Path) -> None:
    other = LOCK.model_copy(update={"rootfs": (pin("bash", "2.0", base=True), pin("nftables"))})
    before, after = roots_of(plan(tmp_path)), roots_of(plan(tmp_path, lock=other))
    assert [before[label].key != after[label].key for label in (BASE_LABEL, OVER)] == [True, True]


def test_a_root_that_names_nothing_more_is_the_base_that_others_share(tmp_path: Path) -> None:
    alone = LOCK.model_copy(update={"rootfs": LOCK.rootfs[:1]})
    made = roots_of(plan(tmp_path, {"rootfs": {"packages": ["bash"]}}, alone))
    assert list(made) == [BASE_LABEL]
    assert made[BASE_LABEL].key == roots_of(plan(tmp_path))[BASE_LABEL].key


@pytest.mark.parametrize(
    ("change", "pins", "label"),
    [
        ({}, (pin("bash"), pin("nftables")), AT_ONCE),
        ({"rootfs": {"bootstrap": {"kind": "debootstrap"}}}, LOCK.rootfs, AT_ONCE.replace("mmdebstrap", "debootstrap")),
    ],
    ids=["a lock without a base", "debootstrap"],
)
def test_a_root_without_layers_says_so(
    tmp_path: Path, change: dict[str, Any], pins: tuple[LockedDeb, ...], label: str
) -> None:
    made = roots_of(plan(tmp_path, change, LOCK.model_copy(update={"rootfs": pins})))
    assert list(made) == [label]
    spec = made[label].inputs["packages"].spec
    assert isinstance(spec, PackagesSpec)
    assert [pin.name for pin in spec.pins] == ["bash", "nftables"]


def test_a_files_bytes_are_in_the_key_and_its_name_is_not(tmp_path: Path) -> None:
    before = plan(tmp_path / "a").bundle.key
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("other\n")
    assert plan(tmp_path / "b").bundle.key != before
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "y").write_text("content\n")
    renamed = {"rootfs": {"files": [{"path": "/etc/x", "source": "y"}]}}
    changed = {s.stage for s in plan(tmp_path / "c", renamed).bundle.walk()} - {"bundle"}
    same = {(s.stage, s.label): s.key for s in plan(tmp_path / "a").bundle.walk()}
    assert all(s.key == same[s.stage, s.label] for s in plan(tmp_path / "c", renamed).bundle.walk()
               if s.stage in changed - {"packages"})  # fmt: skip


def test_the_compiler_is_in_the_kernels_key(tmp_path: Path) -> None:
    recipe = parse(dict(BASE), "demo.toml")
    (tmp_path / "x").write_text("content\n")

    def kernel_key(version: str) -> str:
        files = Files(tmp_path, "demo.toml")
        made = plan_of(recipe, LOCK, files, lambda p: f"{p} {version}", path=tmp_path / "d", mirrors={})
        return made.parts["kernel"].key

    assert kernel_key("12") != kernel_key("13")


@pytest.mark.parametrize(("version", "asked"), [("7.3", False), ("6.1", True)])
def test_symbols_that_are_gone_are_not_asked_for(tmp_path: Path, version: str, asked: bool) -> None:
    lock = LOCK.model_copy(update={"kernel": (pin(f"linux-source-{version}", f"{version}.4-1"),)})
    made = plan(tmp_path, {"network": [{"transport": {"kind": "fd", "fd": 20}}]}, lock)
    spec: Any = next(step.spec for step in made.bundle.walk() if step.stage == "kernel_config")
    assert ("UML_NET" in dict(spec.optional_symbols)) is asked


def test_missing_files_are_told_all_at_once(tmp_path: Path) -> None:
    change = {"kernel": {"config": ["no.config"], "patches": ["no.patch"]},
              "rootfs": {"files": [{"path": "/a", "source": "nope"}]}}  # fmt: skip
    files = Files(tmp_path, "demo.toml")
    plan_of(parse(merged(BASE, change), "demo.toml"), LOCK, files, identity, path=tmp_path / "d", mirrors={})
    assert [problem.split(": ")[1] for problem in files.problems] == [
        "kernel.patches[0]", "kernel.config[0]", "rootfs.files[0].source",
    ]  # fmt: skip


def test_passwords_come_from_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hash_of(user: dict[str, str]) -> tuple[str, list[str]]:
        (tmp_path / "x").write_text("")
        files = Files(tmp_path, "demo.toml")
        change = {"rootfs": {"users": [{"name": "root", **user}]}}
        made = plan_of(parse(merged(BASE, change), "demo.toml"), LOCK, files, identity,
                       path=tmp_path / "d", mirrors={})  # fmt: skip
        assert "$y$" not in made.bundle.spec.model_dump_json()
        spec: Any = made.parts["rootfs"].spec
        return spec.users[0].password_hash, files.problems

    (tmp_path / "hash").write_text("$y$j9T$abc\n")
    assert hash_of({"password_file": "hash"}) == ("$y$j9T$abc", [])
    monkeypatch.setenv("ROOT_HASH", "$y$j9T$def")
    assert hash_of({"password_env": "ROOT_HASH"}) == ("$y$j9T$def", [])
    (tmp_path / "hash").write_text("secret\n")
    assert "is no hash of crypt(5)" in hash_of({"password_file": "hash"})[1][0]
    assert "UNSET_ONE is not set" in hash_of({"password_env": "UNSET_ONE"})[1][0]


def test_the_lock_answers_only_its_own_questions() -> None:
    asked = wishes_of(parse(dict(BASE), "demo.toml"))
    assert wishes_of(parse(merged(BASE, {"rootfs": {"hostname": "b"}}), "demo.toml")) == asked
    assert wishes_of(parse(merged(BASE, {"rootfs": {"packages": ["vim"]}}), "demo.toml")) != asked


def test_the_bundle_keeps_its_sources_but_no_secret(tmp_path: Path) -> None:
    (tmp_path / "hash").write_text("$y$j9T$salt$digest\n")
    spec = plan(tmp_path, {"rootfs": {"users": [{"name": "root", "password_file": "hash"}]}}).bundle.spec
    assert isinstance(spec, BundleSpec)
    rows = {source.name: (source.at, source.kind, bool(source.sha256)) for source in spec.sources}
    assert rows == {
        "hash": ("rootfs.users[0].password_file", "secret", False),
        "x": ("rootfs.files[0].source", "kept", True),
    }
    assert parse_lock(spec.lock, Path("lock"), "demo.toml") == LOCK
    assert "gcc 1.0" in spec.built_with


def test_a_prebuilt_kernel_whose_lock_has_no_compiler(tmp_path: Path) -> None:
    data = merged(BASE, {"kernel": {"source": {"kind": "prebuilt"}}})
    data["kernel"].pop("options")

    def planned(*kernel: LockedDeb) -> None:
        lock = LOCK.model_copy(update={"kernel": kernel})
        files = Files(tmp_path, "demo.toml")
        plan_of(parse(data, "demo.toml"), lock, files, identity, path=tmp_path / "demo.toml", mirrors={})

    with pytest.raises(LockError, match="the lock names no tcc for the kernel"):
        planned(pin("user-mode-linux"), pin("libc6"))
    planned(pin("user-mode-linux"), pin("libc6"), pin("tcc"))
