"""Filters in a recipe: what is refused and how, what becomes of the rest in plan, command line and lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from expressions import EXPRESSIONS
from hypothesis import given
from hypothesis import strategies as st
from test_plan_keys import LOCK, identity, plan

from umlbuild import lock as locks
from umlbuild.bpf import expression
from umlbuild.errors import RecipeError
from umlbuild.host import needs, pcap, process
from umlbuild.host.files import Files
from umlbuild.kinds.transports import KINDS
from umlbuild.kinds.transports.bess import Bess
from umlbuild.plan.bundle import Plan, plan_of
from umlbuild.plan.cmdline import words_of
from umlbuild.plan.wishes import wishes_of
from umlbuild.recipe.load import parse
from umlbuild.specs.filters import FiltersSpec, FrameFilter

BESS = {"kind": "bess", "dst": "/run/net.sock"}
TAP = {"kind": "tap", "ifname": "tap0"}
HEAD: dict[str, Any] = {
    "format": 1, "name": "demo", "kernel": {"source": "debian"}, "image": {"kind": "ext4"},
}  # fmt: skip


def recipe(*networks: dict[str, Any]) -> dict[str, Any]:
    return {**HEAD, "network": list(networks)}


def step_of(made: Plan) -> FiltersSpec:
    spec = made.bundle.inputs["filters"].spec
    assert isinstance(spec, FiltersSpec)
    return spec


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"transport": TAP, "filter": "arp"}, "network[0].filter: tap takes no filter: UML attaches it to a socket"),
    ({"transport": BESS, "filter": ""}, "network[0].filter: an empty expression"),
    ({"transport": BESS, "filter": {}}, "network[0].filter: needs either an expression or a file"),
    ({"transport": BESS, "filter": {"expression": "arp", "file": "x"}}, "network[0].filter: needs either"),
    ({"transport": BESS, "filter": {"fil": "x"}}, 'network[0].filter.fil: unknown key "fil"; did you mean "file"?'),
    ({"transport": BESS, "filter": "tcp prt 22"}, 'network[0].filter: column 5: "prt": no word of an expression;'
     ' names of hosts and services must be numbers; did you mean "port"?'),
    ({"transport": BESS, "filter": "tcp port ssh"}, 'column 10: "ssh": names are looked up where the bundle is built; '
     "write the number (22)"),
    ({"transport": BESS, "filter": "host router.example"}, 'column 6: "router.example": no word of an expression'),
    ({"transport": BESS, "filter": "vlan 5"}, 'column 1: "vlan": the kernel takes VLAN tags off'),
    ({"transport": BESS, "filter": "inbound and tcp"}, '"inbound": a filter sees only one direction'),
    ({"transport": BESS, "filter": "ip6 protochain 6"}, '"protochain": it becomes a loop'),
    ({"transport": BESS, "filter": "ip proto \\tcp"}, "column 10: '\\\\' has no meaning"),
    ({"transport": BESS, "filter": "tcp) or (udp"}, "column 4: a bracket is closed that is not open"),
    ({"transport": BESS, "filter": "(tcp or udp"}, "a bracket is not closed"),
    ({"transport": BESS, "filter": "tcp;udp"}, "column 4: ';' has no meaning"),
    ({"transport": BESS, "egress": {"allow": ["arp"]}}, "network[0].egress: what bess sends comes in at no interface"),
    ({"transport": TAP, "egress": {}}, "network[0].egress: needs either allow or a file"),
    ({"transport": TAP, "egress": {"allow": ["arp", "tcp prt 5"]}}, "network[0].egress.allow[1]: column 5: "),
]  # fmt: skip


@pytest.mark.parametrize(("network", "sentence"), WRONG)
def test_what_is_wrong_is_named(network: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(recipe(network), "demo.toml")
    assert any(sentence in problem for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_good_expressions_are_not_complained_about(text: str) -> None:
    assert list(expression.problems(text)) == []


@given(st.text(max_size=60))
def test_any_text_has_an_answer(text: str) -> None:
    for problem in expression.problems(text):
        assert problem


@pytest.mark.parametrize("text", ["host fe80::1 and not ether host 00:11:22:aa:bb:cc", "ether[0] & 1 = 0",
                                  "net 10.1 or net 10.0.0.0 mask 255.0.0.0", "tcp[0x0d] != 0", "ether src 0-1-2-3-4-5",
                                  "port 53 && !udp || icmp", "ip host ::ffff:1.2.3.4"])  # fmt: skip
def test_all_spellings_of_numbers_are_known(text: str) -> None:
    assert list(expression.problems(text)) == []


def test_rules_of_a_file() -> None:
    text = "# router\n\narp\n  tcp   port 22   # ssh\n#udp\nicmp"
    assert expression.lines_of(text) == [(3, "arp"), (4, "tcp port 22"), (6, "icmp")]
    assert expression.joined(("arp",)) == "arp"
    assert expression.joined(("arp", "icmp")) == "(arp) or (icmp)"


def made_of(directory: Path, *networks: dict[str, Any], problems: list[str] | None = None) -> Plan:
    (directory / "x").write_text("")
    files = Files(directory, "demo.toml")
    made = plan_of(parse(recipe(*networks), "demo.toml"), LOCK, files, identity, path=directory / "d", mirrors={})
    assert files.problems == (problems or [])
    return made


def test_a_filter_is_a_step_a_file_and_an_option(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("arp # all\nicmp\n")
    made = made_of(tmp_path, {"transport": BESS}, {"transport": BESS, "filter": {"file": "rules"}},
                   {"transport": TAP, "egress": {"allow": ["arp", "tcp  port 443"]}})  # fmt: skip
    assert step_of(made).filters == (
        FrameFilter(interface="vec1", incoming=("arp", "icmp")),
        FrameFilter(interface="vec2", outgoing=("arp", "tcp port 443")),
    )
    assert step_of(made).script is not None
    vectors = [word for word in words_of(made.recipe, "demo.toml") if word.startswith("vec")]
    assert [",bpffile=filters/vec1.bpf" in word for word in vectors] == [False, True, False]
    spec: Any = made.bundle.spec
    assert "FILTERS=filters/vec1.bpf\n" in spec.launcher and "EGRESS=vec2:tap0\n" in spec.launcher
    assert "check_egress" in spec.launcher


def test_comments_of_a_file_are_not_in_the_key(tmp_path: Path) -> None:
    def key(text: str) -> str:
        (tmp_path / "rules").write_text(text)
        return made_of(tmp_path, {"transport": BESS, "filter": {"file": "rules"}}).bundle.inputs["filters"].key

    assert key("arp\nicmp\n") == key("# new\narp\n\nicmp # ping\n") != key("icmp\n")


def test_problems_of_a_file_name_its_line(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("arp\n# x\ntcp prt 22\n")
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "x").write_text("")
    files = Files(tmp_path, "demo.toml")
    networks = [{"transport": BESS, "filter": {"file": name}} for name in ("rules", "empty", "none")]
    plan_of(parse(recipe(*networks), "demo.toml"), LOCK, files, identity, path=tmp_path / "d", mirrors={})
    assert [problem.partition('"prt"')[0] for problem in files.problems] == [
        "demo.toml: network[0].filter.file: rules, line 3: column 5: ",
        "demo.toml: network[1].filter.file: empty: there is no expression in it",
        "demo.toml: network[2].filter.file: none: No such file or directory",
    ]


def test_without_filters_nothing_is_there(tmp_path: Path) -> None:
    made = made_of(tmp_path, {"transport": BESS})
    assert "filters" not in made.bundle.inputs
    spec: Any = made.bundle.spec
    assert "check_filter()" not in spec.launcher and "bpffile" not in spec.launcher


def test_what_hears_itself_has_a_filter_always(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of such a transport only; no expression, so no libpcap."""
    monkeypatch.setattr(Bess, "HEARS_ITSELF", True)
    made = made_of(tmp_path, {"transport": BESS})
    assert step_of(made).filters == (FrameFilter(interface="vec0", incoming=()),)
    assert dict(made.bundle.inputs["filters"].inputs) == {}
    assert wishes_of(made.recipe).filters is None
    assert "bpffile=filters/vec0.bpf" in " ".join(words_of(made.recipe, "demo.toml"))


def test_what_hears_itself_takes_filters() -> None:
    assert [kind for kind in KINDS if kind.HEARS_ITSELF and not kind.FILTERED] == []


def test_only_filters_ask_for_libpcap(tmp_path: Path) -> None:
    without = wishes_of(parse(recipe({"transport": BESS}), "demo.toml"))
    with_one = wishes_of(parse(recipe({"transport": BESS, "filter": "arp"}), "demo.toml"))
    other = wishes_of(parse(recipe({"transport": BESS, "filter": "icmp"}), "demo.toml"))
    assert without.filters is None and with_one.filters == ("tcpdump",)
    assert without != with_one == other
    # A lock from before there were filters is still one.
    text = locks.text_of(LOCK.model_copy(update={"filters": ()}))
    assert "filters" not in text
    assert locks.parse(text, Path("demo.lock.toml"), "demo.toml").filters == ()


def test_a_filter_moves_only_filters_and_bundle(tmp_path: Path) -> None:
    def keys(text: str | None) -> dict[str, str]:
        network = {"transport": BESS, **({"filter": text} if text else {})}
        made = plan(tmp_path, {"network": [network]})
        return {f"{step.stage} {step.label}": step.key for step in made.bundle.walk()}

    before, one, other = keys(None), keys("arp"), keys("icmp")
    moved = {name.split()[0] for name in one if before.get(name) != one[name]}
    assert moved == {"packages", "tools", "filters", "bundle"}  # tools of its own: images stay
    assert {name.split()[0] for name in one if other.get(name) != one[name]} == {"filters", "bundle"}


def test_a_libpcap_of_this_machine_is_needed_for_expressions_only() -> None:
    def programs(item: FrameFilter) -> tuple[str, ...]:
        return needs.programs_of(FiltersSpec(filters=(item,)))

    assert "tcpdump" in programs(FrameFilter(interface="vec0", incoming=("arp",)))
    assert "tcpdump" not in programs(FrameFilter(interface="vec0", incoming=()))


@pytest.mark.skipif(process.find("tcpdump") is None, reason="tcpdump is not installed")
@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (("tcp port",), "network[3].filter: 'tcp port': libpcap: "),
        (("arp", "tcp port 99999"), "network[3].filter: 'tcp port 99999': libpcap: "),
        (("tcp port 22 and udp",), "libpcap: expression rejects all packets"),
        (("(80)",), "libpcap: "),
        ((" or ".join(f"ether[{n}] = {n}" for n in range(2200)),), " instructions; a filter has 1 to 4096"),
    ],
)
def test_what_libpcap_refuses_is_told_with_its_words(lines: tuple[str, ...], sentence: str) -> None:
    found = list(pcap.refusals(FiltersSpec(filters=(FrameFilter(interface="vec3", incoming=lines),))))
    assert len(found) == 1 and sentence in found[0], found


@pytest.mark.skipif(process.find("tcpdump") is None, reason="tcpdump is not installed")
def test_what_is_right_is_not_refused() -> None:
    good = FrameFilter(interface="vec0", incoming=("arp", "icmp"), outgoing=("tcp port 22",))
    assert list(pcap.refusals(FiltersSpec(filters=(good, FrameFilter(interface="vec1", incoming=()))))) == []
