"""Kconfig values: parsing, spelling, merging, and what did not stick."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlbuild import kconfig
from umlbuild.kconfig import Conflict, KconfigSyntaxError, Request, Unmet

SYMBOLS = st.from_regex(r"[A-Z0-9][A-Z0-9_]{0,12}", fullmatch=True)
TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp"), blacklist_characters="\x85"))
VALUES = st.one_of(
    st.sampled_from(["y", "m", "n"]),
    st.integers(-(2**31), 2**63).map(str),
    st.integers(0, 2**64 - 1).map(hex),
    TEXTS.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
)


@given(st.dictionaries(SYMBOLS, VALUES))
def test_what_is_rendered_is_parsed_again(values: dict[str, str]) -> None:
    assert kconfig.parse(kconfig.render(values.items()), "x") == values


@given(st.text())
def test_any_text_is_parsed_or_refused_with_its_line(text: str) -> None:
    try:
        values = kconfig.parse(text, "x")
    except KconfigSyntaxError as error:
        assert 1 <= error.line <= text.count("\n") + 1
    else:
        assert all(kconfig.is_symbol(symbol) and kconfig.is_value(value) for symbol, value in values.items())


@given(st.one_of(st.booleans(), st.integers(), TEXTS))
def test_every_recipe_value_has_a_spelling(value: bool | int | str) -> None:
    assert kconfig.is_value(kconfig.spelled(value))


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        (True, "y"), (False, "n"), ("m", "m"), ("y", "y"), ("n", "n"), (64, "64"), (0, "0"), (-1, "-1"),
        ("0x1000", "0x1000"), ("null", '"null"'), ("", '""'), ("64", '"64"'), ('a"b\\c', '"a\\"b\\\\c"'),
    ],
)  # fmt: skip
def test_spelling(value: bool | int | str, spelling: str) -> None:
    assert kconfig.spelled(value) == spelling


def test_a_real_fragment() -> None:
    text = """\
#
# Automatically generated file; DO NOT EDIT.
#
CONFIG_UML=y
CONFIG_DUMMY=m
  CONFIG_NR_CPUS=2
CONFIG_CON_CHAN="a \\"quoted\\" # one"
# CONFIG_SMP is not set
#CONFIG_COMMENTED=y
CONFIG_UML=n\r
"""
    assert kconfig.parse(text, "x") == {
        "DUMMY": "m", "NR_CPUS": "2", "CON_CHAN": '"a \\"quoted\\" # one"', "SMP": "n", "UML": "n",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("CONFIG_A=y\nUML=y\n", 2, "not a line of a kernel configuration"),
        ("\nCONFIG_A=yes\n", 2, "not a Kconfig value"),
        ("CONFIG_A=\n", 1, "not a Kconfig value"),
        ('CONFIG_A="open\n', 1, "not a Kconfig value"),
        ("CONFIG_A-B=y", 1, "not a line of a kernel configuration"),
        ("# CONFIG_B is not set\nCONFIG_A y", 2, "not a line of a kernel configuration"),
    ],
)
def test_bad_lines_are_named(text: str, line: int, why: str) -> None:
    with pytest.raises(KconfigSyntaxError) as caught:
        kconfig.parse(text, "router/kernel.config")
    assert caught.value.line == line
    assert caught.value.message.startswith(f"router/kernel.config:{line}: {why}: ")
    assert "# CONFIG_X is not set" in caught.value.hint


def test_a_later_layer_wins_and_the_difference_is_told() -> None:
    merged, conflicts = kconfig.merge(
        [("base", {"A": "y", "B": "n", "C": "0x10"}), ("share", {"B": "y", "C": "16"}), ("options", {"D": "m"})]
    )
    assert {symbol: (r.value, r.origin) for symbol, r in merged.items()} == {
        "A": ("y", "base"), "B": ("y", "share"), "C": ("16", "share"), "D": ("m", "options"),
    }  # fmt: skip
    assert conflicts == [Conflict(Request("B", "y", "share"), Request("B", "n", "base"))]


def test_what_did_not_stick() -> None:
    requested = {"Z": "y", "A": "n", "B": "m", "C": '"x"', "D": "0x10", "E": "n", "F": "n"}
    final = {"B": "y", "C": '"x"', "D": "16", "E": "y"}
    assert kconfig.unmet(requested, final) == [Unmet("B", "m", "y"), Unmet("E", "n", "y"), Unmet("Z", "y", "n")]


@given(st.dictionaries(SYMBOLS, VALUES))
def test_a_configuration_honours_itself(values: dict[str, str]) -> None:
    assert kconfig.unmet(values, values) == []
    assert kconfig.unmet(dict.fromkeys(values, "n"), {}) == []
