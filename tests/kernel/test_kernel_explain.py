"""Why a symbol did not stick, explained from a small tree of Kconfig files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlbuild.host.kconfig_tree import definitions_of
from umlbuild.kconfig import Unmet
from umlbuild.kconfig_explain import explain
from umlbuild.kconfig_expression import BadExpression, parse, symbols_of, value_of
from umlbuild.kconfig_language import Definition, definitions

TREE = {
    "Kconfig": """\
mainmenu "Linux/$(ARCH)"
cc-yes := $(success,true)
source "arch/$(SRCARCH)/Kconfig"
source "net/Kconfig"
source "absent/Kconfig"
""",
    "arch/um/Kconfig": """\
config UML
\tbool
\tdefault y
\tselect TTY if !NO_TTY
config TTY
\tbool "tty" if EXPERT
config HZ
\tint
\tdefault 100
source "arch/$(HEADER_ARCH)/um/Kconfig"
""",
    "arch/x86/um/Kconfig": """\
config 64BIT
\tbool "64-bit kernel" if "$(SUBARCH)" = "x86"
\tdefault "$(SUBARCH)" != "i386"
""",
    "net/Kconfig": """\
menuconfig NET
\tbool "Networking support"
\thelp
\t  config NOT_A_SYMBOL
\t  is only mentioned here.

\t  depends on nothing
config MODULES
\tbool "modules"
if NET
comment "packet filters"
\tdepends on NETFILTER
menu "Netfilter"
\tdepends on INET && \\
\t\tNETFILTER
config NFT_NAT
\ttristate "nat"
\tdepends on NF_CONNTRACK
\tdepends on NF_TABLES_IPV4 || NF_TABLES_IPV6
\tselect NF_NAT
endmenu
config NF_NAT
\ttristate
config INET
\tbool "TCP/IP"
config NETFILTER
\tbool "nf"
config NF_CONNTRACK
\ttristate "ct"
config COND
\tbool "conditional"
\tdepends on INET if NETFILTER
config CC
\tbool "needs the compiler"
\tdepends on $(cc-option,-mfoo) && NETFILTER
choice
\tprompt "Which"
\tdefault ONE
\tdepends on INET
config ONE
\tbool "one"
config TWO
\tbool "two"
endchoice
endif
config LEVEL
\tint "level"
\trange 1 9
\tdepends on NET
""",
}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Definition]]:
    root = tmp_path_factory.mktemp("tree")
    for name, text in TREE.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return definitions_of(root)


def test_every_symbol_is_found_and_none_in_a_help_text(known: dict[str, list[Definition]]) -> None:
    assert set(known) == {
        "UML", "TTY", "HZ", "64BIT", "NET", "MODULES", "NFT_NAT", "NF_NAT", "INET", "NETFILTER",
        "NF_CONNTRACK", "COND", "CC", "ONE", "TWO", "LEVEL",
    }  # fmt: skip


def test_what_is_around_a_symbol_counts(known: dict[str, list[Definition]]) -> None:
    (nat,) = known["NFT_NAT"]
    assert [str(e) for e in nat.depends] == [
        "NET", "INET && NETFILTER", "NF_CONNTRACK", "NF_TABLES_IPV4 || NF_TABLES_IPV6",
    ]  # fmt: skip
    (level,) = known["LEVEL"]
    assert [str(e) for e in level.depends] == ["NET"], "endif ends the block"
    assert (nat.file, nat.type, nat.prompt) == ("net/Kconfig", "tristate", "nat")
    (wide,) = known["64BIT"]
    assert wide.file == "arch/x86/um/Kconfig"
    assert known["ONE"][0].choice == known["TWO"][0].choice is not None


@pytest.mark.parametrize(
    ("item", "final", "words"),
    [
        pytest.param(
            Unmet("NFT_NATS", "y", "n"), {}, ["NFT_NATS=y: this kernel has no such symbol; near: NFT_NAT, NF_NAT"],
            id="unknown symbol",
        ),
        pytest.param(
            Unmet("QQQQQ", "y", "n"), {}, ["QQQQQ=y: this kernel has no such symbol"], id="nothing is near"
        ),
        pytest.param(
            Unmet("NFT_NAT", "y", "n"),
            {"NET": "y", "INET": "y", "NETFILTER": "y", "NF_CONNTRACK": "m"},
            [
                "NFT_NAT=y: it is n",
                "depends on NF_CONNTRACK, which is m (net/Kconfig:16)",
                "depends on NF_TABLES_IPV4 || NF_TABLES_IPV6, which is n "
                "[NF_TABLES_IPV4=n, NF_TABLES_IPV6=n] (net/Kconfig:16)",
            ],
            id="unmet dependencies only",
        ),
        pytest.param(
            Unmet("NF_NAT", "y", "n"), {"NET": "y"},
            ["NF_NAT=y: it is n", "cannot be set by itself; selected by NFT_NAT"], id="no prompt, selected",
        ),
        pytest.param(
            Unmet("HZ", "250", "100"), {},
            ["HZ=250: it is 100", "cannot be set by itself; its value follows from: 100"],
            id="no prompt, default",
        ),
        pytest.param(
            Unmet("TTY", "n", "y"), {"UML": "y"},
            ["TTY=n: it is y", "selected by UML=y (arch/um/Kconfig:1)"], id="selected",
        ),
        pytest.param(
            Unmet("TTY", "y", "n"), {},
            ["TTY=y: it is n", "can only be set where EXPERT, which is n (arch/um/Kconfig:5)"],
            id="prompt condition",
        ),
        pytest.param(
            Unmet("TWO", "y", "n"), {"NET": "y", "INET": "y", "ONE": "y"},
            ["TWO=y: it is n", "ONE is chosen instead (net/Kconfig:42)"], id="choice",
        ),
        pytest.param(
            Unmet("INET", "m", "n"), {"NET": "y", "MODULES": "y"},
            ["INET=m: it is n", "cannot be a module: it is y or n (net/Kconfig:24)"], id="bool as m",
        ),
        pytest.param(
            Unmet("NF_CONNTRACK", "m", "n"), {"NET": "y"},
            ["NF_CONNTRACK=m: it is n", "modules are off: MODULES=n"], id="m without modules",
        ),
        pytest.param(
            Unmet("LEVEL", "3", "n"), {}, ["LEVEL=3: it is n", "depends on NET, which is n (net/Kconfig:46)"],
            id="number",
        ),
        pytest.param(
            Unmet("COND", "y", "n"), {"NET": "y", "NETFILTER": "y"},
            ["COND=y: it is n", "depends on !NETFILTER || INET, which is n [NETFILTER=y, INET=n] (net/Kconfig:30)"],
            id="depends on … if",
        ),
        pytest.param(
            Unmet("CC", "y", "n"), {"NET": "y"},
            ["CC=y: it is n", "depends on NETFILTER, which is n (net/Kconfig:33)"], id="a macro is opaque",
        ),
    ],
)  # fmt: skip
def test_the_reason(
    known: dict[str, list[Definition]], item: Unmet, final: dict[str, str], words: list[str]
) -> None:
    assert [line.strip() for line in explain([item], known, final)] == words


def test_all_failed_symbols_are_told_at_once(known: dict[str, list[Definition]]) -> None:
    lines = explain([Unmet("LEVEL", "3", "n"), Unmet("NFT_NAT", "m", "n")], known, {})
    assert [line for line in lines if not line.startswith(" ")] == ["LEVEL=3: it is n", "NFT_NAT=m: it is n"]


@pytest.mark.parametrize(
    ("text", "values", "value"),
    [
        ("A", {}, 0), ("A", {"A": "m"}, 1), ("!A", {"A": "m"}, 1), ("!A", {}, 2), ("y", {}, 2),
        ("A && B", {"A": "y", "B": "m"}, 1), ("A || B && C", {"A": "m", "B": "y"}, 1),
        ("(A || B) && C", {"A": "y"}, 0), ("A=y", {"A": "y"}, 2), ("A = n", {}, 2), ("A!=m", {"A": "m"}, 0),
        ('"x" = "x"', {}, 2), ('A = "um"', {"A": '"um"'}, 2), ("GCC_VERSION >= 80000", {"GCC_VERSION": "120200"}, 2),
        ("GCC_VERSION < 80000", {"GCC_VERSION": "120200"}, 0), ("$(success,test -e (x))", {}, 2), ("!!A", {}, 0),
        ("A>0x10", {"A": "17"}, 2),
    ],
)  # fmt: skip
def test_expressions(text: str, values: dict[str, str], value: int) -> None:
    assert value_of(parse(text), values) == value


@pytest.mark.parametrize("text", ["", "A &&", "(A", "A B", "&& A", "A;B", ")", "A = ="])
def test_bad_expressions_are_refused(text: str) -> None:
    with pytest.raises(BadExpression):
        parse(text)


ATOMS = st.sampled_from(["A", "B", "C", "y", "n"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) && ({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) || ({pair[1]})"),
        inner.map(lambda one: f"!({one})"),
    ),
)


@given(EXPRESSIONS, st.dictionaries(st.sampled_from("ABC"), st.sampled_from("nmy")))
def test_a_printed_expression_means_the_same(text: str, values: dict[str, str]) -> None:
    expression = parse(text)
    again = parse(str(expression))
    assert value_of(again, values) == value_of(expression, values)
    assert symbols_of(again) == symbols_of(expression)


@given(st.text("config bool\"menuif()&|!=$#\\\n\t ABC", max_size=200))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    definitions(lambda path: text if path == "Kconfig" else None)
