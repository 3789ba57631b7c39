"""The kernel kinds: recipes in, wishes and sources out; the named sets of symbols."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from umlbuild import kconfig
from umlbuild.kinds import kernels, symbols
from umlbuild.kinds.hardening import Hardening
from umlbuild.kinds.kernels import KernelSource
from umlbuild.kinds.kernels.base import KernelModel
from umlbuild.kinds.kernels.debian import Debian
from umlbuild.kinds.kernels.prebuilt import COMPILER, LIBRARIES, Prebuilt
from umlbuild.kinds.kernels.tarball import Tarball
from umlbuild.kinds.kernels.tree import Tree
from umlbuild.kinds.kernels.wish import PackageWish
from umlbuild.reference import descriptions_of
from umlbuild.specs.kernel import DebSource, TarballSource, TreeSource
from umlbuild.specs.packages import DebPin

SHA = "ab" * 32
BESIDE = (*LIBRARIES, COMPILER)
URL = "https://mirror.example/linux-7.3.4.tar.xz"
PIN = DebPin(
    name="linux-source-7.3", version="7.3.4-1~bpo13+1", architecture="all", size=1, sha256=SHA,
    path="pool/main/l/linux/linux-source-7.3_7.3.4-1~bpo13+1_all.deb",
)  # fmt: skip
ADAPTER: TypeAdapter[Any] = TypeAdapter(KernelSource)
RECIPES: tuple[dict[str, str], ...] = (
    {"kind": "debian"},
    {"kind": "debian", "suite": "trixie-backports", "version": "7.3"},
    {"kind": "prebuilt", "suite": "bookworm"},
    {"kind": "tarball", "url": URL, "sha256": SHA},
    {"kind": "tree", "path": "../linux"},
)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_round_trip(recipe: dict[str, str]) -> None:
    model = ADAPTER.validate_python(recipe)
    assert model.model_dump(exclude_none=True) == recipe
    assert hash(model) == hash(ADAPTER.validate_python(recipe))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_unknown_keys_are_refused(recipe: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python({**recipe, "sha": "x"})


def test_no_kind_is_forgotten() -> None:
    folder = Path(kernels.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "wish"}
    assert files == {kind.model_fields["kind"].default for kind in kernels.KINDS}


@pytest.mark.parametrize("kind", kernels.KINDS)
def test_documented_and_pure(kind: type[KernelModel]) -> None:
    module = sys.modules[kind.__module__]
    assert "Source:" in (module.__doc__ or "")
    described = descriptions_of(kind)
    assert [name for name in kind.model_fields if name != "kind" and not described.get(name)] == []
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert imported <= {"__future__", "re", "typing", "typing_extensions", "urllib", "pydantic", "umlbuild"}


@pytest.mark.parametrize(
    ("kind", "wish"),
    [
        (Debian(), PackageWish(suite="bookworm", pattern=r"linux-source-\d+\.\d+")),
        (Debian(suite="sid"), PackageWish(suite="sid", pattern=r"linux-source-\d+\.\d+")),
        (Debian(version="7.3"), PackageWish(suite="bookworm", package="linux-source-7.3")),
        (
            Debian(version="7.3.4-1~bpo13+1"),
            PackageWish(suite="bookworm", package="linux-source-7.3", version="7.3.4-1~bpo13+1"),
        ),
        (Debian(package="linux-source-rt"), PackageWish(suite="bookworm", package="linux-source-rt")),
        (Prebuilt(), PackageWish(suite="bookworm", package="user-mode-linux", libraries=BESIDE)),
        (Prebuilt(suite="trixie"), PackageWish(suite="trixie", package="user-mode-linux", libraries=BESIDE)),
        (Tarball(url=URL, sha256=SHA), None),
        (Tree(path="x"), None),
    ],
)
def test_what_is_wanted_of_the_archive(kind: KernelModel, wish: PackageWish | None) -> None:
    assert kind.wanted("bookworm") == wish


def test_sources() -> None:
    assert Debian().source(PIN, None) == DebSource(pin=PIN)
    assert Tree(path="x").source(None, "d") == TreeSource(digest="d")
    assert Tarball(url=URL, sha256=SHA).source(None, None) == TarballSource(
        url=URL, sha256=SHA, compression="xz"
    )


@pytest.mark.parametrize(
    ("name", "compression"),
    [("linux.tar.xz", "xz"), ("linux-7.3.tar.gz", "gz"), ("l.tgz", "gz"), ("l.tar.zst", "zst"), ("l.tar.gz?x=1", "gz")],
)
def test_compression_of_a_url(name: str, compression: str) -> None:
    tarball = Tarball(url=f"https://mirror.example/{name}", sha256=SHA)
    assert tarball.source(None, None).compression == compression


@pytest.mark.parametrize(
    ("kind", "pin", "version"),
    [
        (Debian(), None, None),
        (Debian(), PIN, (7, 3)),
        (Debian(version="6.1"), None, (6, 1)),
        (Debian(version="6.12.4-1"), None, (6, 12)),
        (Debian(package="linux-source-7.3"), None, (7, 3)),
        (Prebuilt(), None, None),
        (Prebuilt(), PIN.model_copy(update={"version": "6.1um4+b13"}), (6, 1)),
        (Tarball(url=URL, sha256=SHA), None, (7, 3)),
        (Tarball(url="https://mirror.example/v6.1/linux.tar.xz", sha256=SHA), None, None),
        (Tree(path="linux-7.3"), None, None),
    ],
)
def test_version(
    kind: KernelModel, pin: DebPin | None, version: tuple[int, int] | None
) -> None:
    assert kind.version_of(pin) == version


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"kind": "debian", "version": "latest"}, "'latest' is no kernel version"),
        ({"kind": "debian", "version": "7"}, "'7' is no kernel version"),
        ({"kind": "tarball", "url": "ftp://mirror.example/l.tar.xz", "sha256": SHA}, "is not an http or https URL"),
        ({"kind": "tarball", "url": "https://mirror.example/l.zip", "sha256": SHA}, "does not end in .tar.xz"),
        ({"kind": "tarball", "url": URL, "sha256": "ABC"}, "'ABC' is not a sha256"),
        ({"kind": "tree", "path": ""}, "at least 1 character"),
    ],
)
def test_bad_values_are_worded(recipe: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError, match="(?s).*" + sentence):
        ADAPTER.validate_python(recipe)


SETS = {name: value for name, value in vars(symbols).items() if name.isupper() and not name.startswith("_")}


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_symbols_is_spelled_right(name: str) -> None:
    for symbol, value in SETS[name].items():
        assert kconfig.is_symbol(symbol) and not symbol.startswith("CONFIG_"), symbol
        assert kconfig.is_value(value), (symbol, value)
    if name != "HOSTFS" and not name.endswith("_OPTIONAL"):
        assert f"{name}_OPTIONAL" in SETS


def test_sets_do_not_contradict_each_other_except_where_one_switches_on_what_all_others_have_off() -> None:
    layers = [(name, values) for name, values in SETS.items() if name != "HOSTFS"]
    _, conflicts = kconfig.merge(layers)
    assert [(c.winner.symbol, c.winner.origin) for c in conflicts] == []
    assert symbols.BASE["HOSTFS"] == "n" and symbols.HOSTFS["HOSTFS"] == "y"


def test_sets_are_read_only() -> None:
    with pytest.raises(TypeError):
        symbols.BASE["SMP"] = "y"  # type: ignore[index]


@pytest.mark.parametrize("symbol", ["SMP", "DEVMEM", "PROC_KCORE", "HOSTFS", "XTERM_CHAN", "PORT_CHAN"])
def test_what_endangers_the_host_or_the_guest_is_off_by_default(symbol: str) -> None:
    hardening = [item.kconfig for item in Hardening().on(has_modules=True).values()]
    assert [values[symbol] for values in (symbols.BASE, *hardening) if symbol in values] == ["n"]


def test_the_router_fragment_parses_and_contradicts_no_set() -> None:
    file = Path(__file__).resolve().parents[2] / "recipes/router/kernel.config"
    values = kconfig.parse(file.read_text(), "router/kernel.config")
    assert values["NFT_MASQ"] == "y" and "m" in values.values()
    _, conflicts = kconfig.merge([*SETS.items(), ("router", values)])
    assert [c.winner.symbol for c in conflicts if c.winner.origin == "router"] == []
