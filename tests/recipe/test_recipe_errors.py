"""Every wrong recipe is told in its own language: file, key path, what is wrong, the nearest choice."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from umlbuild.errors import RecipeError
from umlbuild.recipe import Recipe
from umlbuild.recipe.load import load, merged, parse

GOOD = """
format = 1
name = "demo"
[kernel]
source = "prebuilt"
[image]
kind = "ext4"
size = "1G"
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(text, "demo.toml", _no_file)
    return list(caught.value.problems)


def _no_file(name: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", name)


def test_a_good_recipe_is_read() -> None:
    recipe = load(GOOD, "demo.toml", _no_file)
    assert (recipe.name, recipe.kernel.source.kind, recipe.rootfs.init.kind) == ("demo", "prebuilt", "systemd")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ('nam = "x"', 'demo.toml: nam: unknown key "nam"; did you mean "name"?'),
        ('[rootfs]\npackage = ["x"]', 'rootfs.package: unknown key "package"; did you mean "packages"?'),
        ('[rootfs]\ninit = "sysv"', 'rootfs.init: "sysv" is no kind of it; possible are systemd, sysvinit'),
        ('[rootfs]\ninit = "sysvinitt"', 'did you mean "sysvinit"?'),
        ('[rootfs]\nsuite = 12', "rootfs.suite: must be a string, not 12"),
        ('[rootfs]\nhostname = "a_b"', "rootfs.hostname: 'a_b' is not a host name"),
        ('[rootfs]\nvariant = "minbas"', 'rootfs.variant: \'minbas\' is not possible; one of'),
        ('[[rootfs.files]]\npath = "etc/x"\ncontent = ""', "rootfs.files[0].path: 'etc/x' is not an absolute"),
        ('[[rootfs.files]]\npath = "/a/../b"\ncontent = ""', "has an empty part, '.' or '..' in it"),
        ('[[rootfs.files]]\npath = "/x"', "rootfs.files[0]: needs either content or source"),
        ('[[rootfs.files]]\npath = "/x"\nmode = "999"\ncontent=""', "rootfs.files[0].mode: '999' is not a file mode"),
        ('[[rootfs.users]]\nname = "root"\npassword = "x"', 'unknown key "password"'),
        ('[[rootfs.users]]\nname = "root"\npassword_hash = "x"', "is not a password hash of crypt(5)"),
        ('[[rootfs.users]]\nname = "Root"', "is not a user or group name"),
        ('[[network]]\ntransport = "tap"', "network[0].transport.ifname: is missing"),
        ('[[network]]\ntransport = {kind="tap", ifname="a,b"}', "network[0].transport.ifname: 'a,b' is not a name"),
        ('[[network]]\ntransport = {kind="tap", ifname="b", ifnam="a"}',
         'network[0].transport.ifnam: unknown key "ifnam"; did you mean "ifname"?'),
        ('[[network]]\ntransport = {kind="tap", ifname="tap0"}\naddress = "192.168.1.2"', "has no prefix length"),
        ('[[network]]\ntransport = {kind="fd", fd=20}\ngateway = "10.0.0.1"', "network[0].gateway: needs a fixed"),
        ('[kernel.options]\nSMP = []', "kernel.options.SMP: must be true or false"),
        ('[launch]\nmemory = "1M"', "launch.memory: 1M is too little"),
        ('[launch]\ncmdline = ["a b"]', "launch.cmdline[0]: 'a b' is not one word"),
        ('[launch]\ncmdline = ["ubd0=/etc/shadow"]', "ubd is set by other fields"),
    ],
)  # fmt: skip
def test_one_problem_is_named(change: str, sentence: str) -> None:
    found = problems_of(GOOD + change if change.startswith("[") else change + GOOD)
    assert len(found) == 1, found
    assert found[0].startswith("demo.toml: ")
    assert sentence in found[0]


def test_all_problems_are_told_at_once() -> None:
    text = GOOD.replace('name = "demo"', 'name = "De mo"') + '[rootfs]\nhostnam = "x"\nsuite = 1\n[launch]\nram = 1\n'
    assert len(problems_of(text)) == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kernel": {"source": "prebuilt", "options": {"SMP": True}}}, "kernel.options: a prebuilt kernel"),
        ({"kernel": {"source": {"kind": "debian", "suite": "trixie"}, "modules": ["dummy"],
                     "options": {"MODULES": False}}}, "kernel.modules: modules are asked for, but"),
        ({"rootfs": {"symlinks": [{"path": "/etc/fstab", "target": "x"}]}}, "is made by disks, tmpfs and image"),
        ({"rootfs": {"files": [{"path": "/x", "content": ""}, {"path": "/x", "content": ""}]}},
         "rootfs.files[1].path: /x is made by rootfs.files[0] already"),
        ({"rootfs": {"users": [{"name": "a"}, {"name": "a"}]}}, "'a' is there twice"),
        ({"rootfs": {"autologin": "bob"}}, "rootfs.autologin: there is no user 'bob'"),
        ({"rootfs": {"tmpfs": [{"path": "/t"}, {"path": "/t"}]}}, "/t is the mount point of rootfs.tmpfs[0]"),
        ({"rootfs": {"bootstrap": "extract"}}, "extract configures no packages"),
        ({"rootfs": {"init": "busybox", "services": {"enable": ["x"]}}}, "has no services"),
        ({"kernel": {"source": {"kind": "debian", "suite": "trixie"}, "options": {"CONFIG_SMP": True}}},
         "symbols are written without CONFIG_"),
    ],
)  # fmt: skip
def test_impossible_combinations_are_named(change: dict[str, Any], sentence: str) -> None:
    data = merged(tomllib.loads(GOOD), change)
    with pytest.raises(RecipeError) as caught:
        parse(data, "demo.toml")
    assert any(sentence in problem for problem in caught.value.problems), caught.value.problems


def test_not_toml_names_line_and_column() -> None:
    assert "line 2" in problems_of("format = 1\nname = \n")[0]


def test_extends_merges_one_level() -> None:
    base = GOOD + '[rootfs]\nhostname = "a"\npackages = ["vim"]\n'
    recipe = load('extends = "b.toml"\nname = "top"\n[rootfs]\nhostname = "b"\n', "t.toml", lambda _name: base)
    assert (recipe.name, recipe.rootfs.hostname, recipe.rootfs.packages) == ("top", "b", ("vim",))


def test_extends_is_one_level_only() -> None:
    with pytest.raises(RecipeError, match="only one level"):
        load('extends = "b.toml"', "t.toml", lambda _name: 'extends = "c.toml"')


def test_extends_of_a_missing_file_is_named() -> None:
    assert "extends: nowhere.toml: No such file" in problems_of('extends = "nowhere.toml"')[0]


def test_every_field_is_described() -> None:
    """The reference page is made from the descriptions; a field without one would be a gap in it."""
    missing = [path for path, text in _fields(Recipe, "") if not text and path not in _TABLES]
    assert missing == []


_TABLES = {"format", "kernel", "rootfs", "image", "launch", "hardening", "build"}


def _fields(model: Any, prefix: str) -> list[tuple[str, str | None]]:
    from umlbuild.recipe.retell import _item, _models
    from umlbuild.reference import descriptions_of

    rows: list[tuple[str, str | None]] = []
    described = descriptions_of(model)
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if name != "kind":
            rows.append((path, described.get(name)))
        below = [*_models(field.annotation), *_models(_item(field.annotation))]
        for inner in below:
            rows += _fields(inner, f"{path}.")
    return rows


def test_the_reference_page_is_what_the_code_says() -> None:
    from umlbuild import reference

    page = Path(__file__).parents[2] / "docs" / "recipe.md"
    assert page.read_text() == reference.text(), "python -m umlbuild.reference > docs/recipe.md"


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_the_shipped_recipes_are_good(path: Path) -> None:
    if not path.name.endswith(".lock.toml"):
        from umlbuild.project import read_recipe

        assert read_recipe(path).name == path.stem
