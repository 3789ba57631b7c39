"""Tables: which option of a recipe becomes which of UML's, and what is no option at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_plan_keys import LOCK, pin

from umlbuild.errors import RecipeError
from umlbuild.kinds.transports import KINDS
from umlbuild.kinds.transports.user import User
from umlbuild.plan import cmdline
from umlbuild.plan.bundle import plan_of
from umlbuild.recipe import Recipe
from umlbuild.recipe.load import merged, parse
from umlbuild.recipe.network_checks import too_old

BASE: dict[str, Any] = {
    "format": 1,
    "name": "demo",
    "kernel": {"source": {"kind": "debian", "suite": "trixie-backports"}},
    "image": {"kind": "ext4", "size": "1G"},
}
MAC = "mac=02:00:00:00:00:01"
TAIL = f"{MAC},depth=128,mtu=1500,gro=1"
V4 = {"src": "192.0.2.1", "dst": "192.0.2.2"}
V6 = {"src": "2001:db8::1", "dst": "2001:db8::2"}
L2TP = {"kind": "l2tpv3", "rx_session": 7, "tx_session": 8}
UDP = {**L2TP, "udp": True, "srcport": 15001, "dstport": 15002}


Table = dict[str, Any]


def recipe(transport: Table, net: Table | None = None, change: Table | None = None) -> Recipe:
    network = {"transport": transport, "mac": "02:00:00:00:00:01", **(net or {})}
    return parse(merged({**BASE, "network": [network]}, change or {}), "demo.toml")


NO_SANDBOX = {"launch": {"sandbox": "none"}}

OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"kind": "tap", "ifname": "tap0"}, "transport=tap,ifname=tap0"),
    ({"kind": "hybrid", "ifname": "tap0"}, "transport=hybrid,ifname=tap0"),
    ({"kind": "hybrid", "ifname": "t", "allow_guest_bpf": True}, "transport=hybrid,ifname=t,bpfflash=1"),
    ({"kind": "raw", "ifname": "eth1"}, "transport=fd,fd=200"),
    ({"kind": "raw", "ifname": "eth1", "via": "kernel"}, "transport=raw,ifname=eth1,bpffile=filters/vec0.bpf"),
    ({"kind": "raw", "ifname": "eth1", "via": "kernel", "allow_guest_bpf": True},
     "transport=raw,ifname=eth1,bpfflash=1,bpffile=filters/vec0.bpf"),
    ({"kind": "gre", **V4}, "transport=gre,src=192.0.2.1,dst=192.0.2.2,v6=0,sequence=0"),
    ({"kind": "gre", **V6}, "transport=gre,src=2001:db8::1,dst=2001:db8::2,v6=1,sequence=0"),
    ({"kind": "gre", **V4, "rx_key": 0, "tx_key": 0x7FFFFFFF, "sequence": True},
     "transport=gre,src=192.0.2.1,dst=192.0.2.2,v6=0,rx_key=0,tx_key=2147483647,sequence=1,pin_sequence=0"),
    ({"kind": "gre", **V4, "sequence": True, "pin_sequence": True},
     "transport=gre,src=192.0.2.1,dst=192.0.2.2,v6=0,sequence=1,pin_sequence=1"),
    ({**L2TP, **V4}, "transport=l2tpv3,src=192.0.2.1,dst=192.0.2.2,v6=0,udp=0,rx_session=7,tx_session=8,counter=0"),
    ({**UDP, **V6},
     "transport=l2tpv3,src=2001:db8::1,dst=2001:db8::2,v6=1,udp=1,srcport=15001,dstport=15002,"
     "rx_session=7,tx_session=8,counter=0"),
    ({**L2TP, **V4, "rx_cookie": 1, "tx_cookie": 0xFFFFFFFF},
     "transport=l2tpv3,src=192.0.2.1,dst=192.0.2.2,v6=0,udp=0,rx_session=7,tx_session=8,"
     "rx_cookie=1,tx_cookie=4294967295,cookie64=0,counter=0"),
    ({**UDP, **V4, "rx_cookie": 1, "tx_cookie": (1 << 64) - 1, "cookie64": True, "counter": True, "pin_counter": True},
     "transport=l2tpv3,src=192.0.2.1,dst=192.0.2.2,v6=0,udp=1,srcport=15001,dstport=15002,rx_session=7,tx_session=8,"
     "rx_cookie=1,tx_cookie=18446744073709551615,cookie64=1,counter=1,pin_counter=1"),
    ({"kind": "bess", "dst": "/run/s"}, "transport=bess,dst=/run/s"),
    ({"kind": "bess", "dst": "/run/s", "src": "/run/c"}, "transport=bess,dst=/run/s,src=/run/c"),
    ({"kind": "fd", "fd": 20}, "transport=fd,fd=20"),
    ({"kind": "vde", "vnl": "vde:///run/v"}, "transport=vde,vnl=vde:///run/v"),
    ({"kind": "vde", "vnl": "vde:///run/v", "descr": "m", "port": 3, "mode": "0660", "group": "vde"},
     "transport=vde,vnl=vde:///run/v,descr=m,port=3,mode=0660,group=vde"),
]  # fmt: skip


@pytest.mark.parametrize(("transport", "words"), OPTIONS, ids=[words for _, words in OPTIONS])
def test_every_option_reaches_the_kernel(transport: dict[str, Any], words: str) -> None:
    loose = NO_SANDBOX if transport["kind"] == "vde" or ("src" in transport and transport["kind"] == "bess") else None
    assert cmdline.vector_of(recipe(transport, change=loose), 0) == f"vec0:{words},{TAIL}"


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ({"depth": 64}, f"{MAC},depth=64,mtu=1500,gro=1"),
        ({"mtu": 9000, "gro": False}, f"{MAC},depth=128,mtu=9000,gro=0"),
        ({"headroom": 64, "vec": False}, f"{MAC},depth=128,mtu=1500,gro=1,headroom=64,vec=0"),
    ],
)
def test_common_options(net: dict[str, Any], words: str) -> None:
    assert cmdline.vector_of(recipe({"kind": "fd", "fd": 20}, net), 0) == f"vec0:transport=fd,fd=20,{words}"


def test_the_longest_has_as_many_options_as_uml_can_hold() -> None:
    longest = max((t for t, _ in OPTIONS), key=len)
    word = cmdline.vector_of(recipe(longest, {"headroom": 3, "vec": False}), 0)
    assert word.count("=") == cmdline.MAX_OPTIONS == 20


def test_every_field_of_every_kind_is_in_the_table() -> None:
    for kind in KINDS:
        if kind is User:  # its options are the launcher's, see tests/usernet
            continue
        used = {name for transport, _ in OPTIONS if transport["kind"] == kind.model_fields["kind"].default
                for name in transport}  # fmt: skip
        assert set(kind.model_fields) == used, kind


def test_flags_that_uml_never_clears_need_cleared_memory() -> None:
    for transport, words in OPTIONS:
        if transport["kind"] not in ("vde", "bess"):
            wanted = transport["kind"] in ("gre", "l2tpv3")
            assert ("init_on_alloc=1" in cmdline.words_of(recipe(transport), "demo.toml")) is wanted, words


def test_macs_are_stable_and_of_the_machine() -> None:
    nets = [{"transport": {"kind": "fd", "fd": fd}} for fd in (20, 21)]
    words = [cmdline.vector_of(parse({**BASE, "name": name, "network": nets}, "x"), n) for name in "ab" for n in (0, 1)]
    macs = [re.findall(r"mac=([0-9a-f:]+)", word)[0] for word in words]
    assert len(set(macs)) == 4 and all(mac.startswith("02:") for mac in macs)
    assert macs[0] == "02:d7:e9:89:67:05"  # golden: a machine keeps its address


ERRORS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    # what UML takes silently and wrongly, or dies of
    ({"kind": "tap"}, {}, "transport.ifname: is missing"),
    ({"kind": "tap", "ifname": "0123456789abcdef"}, {}, "at most 15 characters"),
    ({"kind": "tap", "ifname": "a,b"}, {}, "is not a name of a network interface"),
    ({"kind": "tap", "ifname": "-a"}, {}, "is not a name of a network interface"),
    ({"kind": "tap", "ifname": "t", "ifup": "/bin/sh"}, {}, 'unknown key "ifup"'),
    ({"kind": "hybrid", "ifname": "t", "bpffile": "/f"}, {}, 'unknown key "bpffile"'),
    ({"kind": "tap", "ifname": "*"}, {}, "is not a name of a network interface"),
    ({"kind": "raw", "ifname": "e", "allow_guest_bpf": True}, {}, 'allow_guest_bpf: only for via = "kernel"'),
    ({"kind": "raw", "ifname": "e", "via": "fd"}, {}, "'fd' is not possible; one of descriptor, kernel"),
    ({"kind": "gre", "src": "192.0.2.1", "dst": "2001:db8::2"}, {}, "are of different families"),
    ({"kind": "gre", "src": "192.0.2.1", "dst": "router"}, {}, "in numbers (names are not resolved)"),
    ({"kind": "gre", "src": "192.0.2.1", "dst": "224.0.0.1"}, {}, "is a multicast address"),
    ({"kind": "gre", "src": "192.0.2.1", "dst": "0.0.0.0"}, {}, "is nobody's address"),
    ({"kind": "gre", "src": "::ffff:192.0.2.1", "dst": "2001:db8::2"}, {}, "write 192.0.2.1"),
    ({"kind": "gre", "src": "fe80::1", "dst": "2001:db8::2"}, {}, "say on which interface (like fe80::1%eth0)"),
    ({"kind": "gre", **V4, "rx_key": 1}, {}, "rx_key needs tx_key, too"),
    ({"kind": "gre", **V4, "tx_key": 1}, {}, "tx_key needs rx_key, too"),
    ({"kind": "gre", **V4, "rx_key": 0x80000000, "tx_key": 1}, {}, "less than or equal to 2147483647"),
    ({"kind": "gre", **V4, "rx_key": -1, "tx_key": 1}, {}, "greater than or equal to 0"),
    ({"kind": "gre", **V4, "pin_sequence": True}, {}, "pin_sequence needs sequence = true"),
    ({"kind": "gre", **V4, "v6": True}, {}, 'unknown key "v6"'),
    ({"kind": "l2tpv3", **V4, "rx_session": 1}, {}, "transport.tx_session: is missing"),
    ({**L2TP, **V4, "rx_session": 0}, {}, "greater than or equal to 1"),
    ({**L2TP, **V4, "tx_session": 0xFFFFFFFF}, {}, "less than or equal to 2147483647"),
    ({**L2TP, **V4, "srcport": 15001}, {}, "srcport and dstport are for udp = true"),
    ({**L2TP, **V4, "udp": True}, {}, "udp needs srcport and dstport"),
    ({**UDP, **V4, "src_port": 15001}, {}, 'unknown key "src_port"; did you mean "srcport"?'),
    ({**UDP, **V4, "srcport": 80}, {}, "greater than or equal to 1024"),
    ({**UDP, **V4, "dstport": 65536}, {}, "less than or equal to 65535"),
    ({**L2TP, **V4, "rx_cookie": 1}, {}, "rx_cookie needs tx_cookie, too"),
    ({**L2TP, **V4, "rx_cookie": 1, "tx_cookie": 1 << 32}, {}, "tx_cookie is larger than 0xffffffff"),
    ({**L2TP, **V4, "rx_cookie": 1, "tx_cookie": 1 << 64, "cookie64": True}, {}, "less than 18446744073709551616"),
    ({**L2TP, **V4, "rx_cookie": "garbage", "tx_cookie": 1}, {}, "rx_cookie: must be a whole number"),
    ({**L2TP, **V4, "cookie64": True}, {}, "cookie64 needs rx_cookie and tx_cookie"),
    ({**L2TP, **V4, "pin_counter": True}, {}, "pin_counter needs counter = true"),
    ({"kind": "bess", "dst": "/" + "x" * 107}, {}, "longer than the 107 bytes"),
    ({"kind": "bess", "dst": "s"}, {}, "is not an absolute path"),
    ({"kind": "bess", "dst": "/s", "src": "/c"}, {}, "the sandbox has no place for this socket"),
    ({"kind": "fd"}, {}, "transport.fd: is missing"),
    ({"kind": "fd", "fd": "20"}, {}, "fd: must be a whole number"),
    ({"kind": "fd", "fd": 3}, {}, "greater than or equal to 20"),
    ({"kind": "fd", "fd": 200}, {}, "less than 200"),
    ({"kind": "vde", "vnl": "vde:///v"}, {}, "vde runs the host's vde_plug"),
    ({"kind": "vde", "vnl": "-d"}, {}, "would be an option of vde_plug"),
    ({"kind": "vde", "vnl": "vde:///v", "mode": "rw"}, {}, "'rw' is not possible here"),
    # what took the place of the old driver's
    ({"kind": "tuntap"}, {}, "use tap"),
    ({"kind": "daemon"}, {}, "use vde, or bess"),
    ({"kind": "slirp"}, {}, "use bess with slirp4netns"),
    ({"kind": "pcap"}, {}, "use raw"),
    ({"kind": "mcast"}, {}, "use l2tpv3"),
    ({"kind": "socket"}, {}, "use l2tpv3"),
    ({"kind": "ethertap"}, {}, "use tap"),
    ({"kind": "slip"}, {}, "use bess"),
    ({"kind": "tapp"}, {}, 'did you mean "tap"?'),
    # what all have
    ({"kind": "fd", "fd": 20}, {"mac": "01:00:00:00:00:01"}, "is a multicast address (its first byte is odd)"),
    ({"kind": "fd", "fd": 20}, {"mac": "00:00:00:00:00:00"}, "UML would take a random one"),
    ({"kind": "fd", "fd": 20}, {"mac": "02:00:00:00:00"}, "six bytes in lower case"),
    ({"kind": "fd", "fd": 20}, {"mac": "02:00:00:00:00:0G"}, "six bytes in lower case"),
    ({"kind": "fd", "fd": 20}, {"mtu": 575}, "greater than or equal to 576"),
    ({"kind": "fd", "fd": 20}, {"mtu": 65535}, "less than or equal to 65534"),
    ({"kind": "tap", "ifname": "t"}, {"mtu": 65522}, "network[0].mtu: a tap carries at most 65521 bytes"),
    ({"kind": "fd", "fd": 20}, {"depth": 0}, "greater than or equal to 1"),
    ({"kind": "fd", "fd": 20}, {"headroom": 2000}, "less than or equal to 1024"),
    # addresses
    ({"kind": "fd", "fd": 20}, {"address": "10.0.0.2/24", "gateway": "10.0.1.1"}, "is not in the network of 10.0.0.2"),
    ({"kind": "fd", "fd": 20}, {"address": "10.0.0.2/24", "gateway": "10.0.0.2"}, "is the machine's own address"),
    ({"kind": "fd", "fd": 20}, {"gateway": "10.0.0.1"}, "network[0].gateway: needs a fixed address"),
    ({"kind": "fd", "fd": 20}, {"address": "fd00::1/64"}, "network[0].address: fd00::1/64 is of the other family"),
    ({"kind": "fd", "fd": 20}, {"address6": "10.0.0.1/8"}, "network[0].address6: 10.0.0.1/8 is of the other family"),
    ({"kind": "fd", "fd": 20}, {"routes": [{"to": "10.0.0.1/8", "via": "10.0.0.1"}]}, "its own spelling is 10.0.0.0/8"),
    ({"kind": "fd", "fd": 20}, {"routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}]}, "is the default route: say"),
    ({"kind": "fd", "fd": 20}, {"routes": [{"to": "fd00::/8", "via": "10.0.0.1"}]}, "are of different families"),
    ({"kind": "fd", "fd": 20}, {"routes": [{"to": "fd00::/8", "via": "fd01::1"}]}, "has no address of this family"),
    ({"kind": "fd", "fd": 20}, {"address": "10.0.0.2/24", "routes": [{"to": "10.9.0.0/16", "via": "10.1.0.1"}]},
     "routes[0].via: 10.1.0.1 is not in the network"),
    # the host
    ({"kind": "fd", "fd": 20}, {"host": {}}, "host: fd has no interface on the host"),
    ({"kind": "tap", "ifname": "t"}, {"host": {"peer": "p"}}, "host.peer: a tap has none"),
    ({"kind": "raw", "ifname": "e"}, {"host": {}}, "host.peer: is missing: the other end of the veth pair"),
    ({"kind": "raw", "ifname": "e"}, {"host": {"create": False, "address": "10.0.0.1/8"}}, "gets no address"),
    ({"kind": "raw", "ifname": "e"}, {"host": {"peer": "p", "bridge": "e"}}, "need different names"),
    ({"kind": "raw", "ifname": "e"}, {"host": {"peer": "p", "user": "bob"}}, "host.user: only a tap"),
    ({"kind": "gre", **V4}, {"host": {"address": "10.0.0.1/8"}}, "host.peer: is missing: the name of the host"),
    ({"kind": "tap", "ifname": "t"}, {"host": {"address": "10.0.0.1"}}, "has no prefix length"),
    ({"kind": "tap", "ifname": "t"}, {"host": {"address6": "10.0.0.1/8"}}, "is of the other family"),
    ({"kind": "tap", "ifname": "t"}, {"address": "10.0.0.2/24", "host": {"address": "10.0.0.2/24"}}, "is the guest's"),
    ({"kind": "tap", "ifname": "t"}, {"address": "10.0.0.2/24", "host": {"address": "10.0.1.1/24"}},
     "are not in one network"),
    ({"kind": "tap", "ifname": "t"}, {"hosts": {}}, 'unknown key "hosts"; did you mean "host"?'),
]  # fmt: skip


@pytest.mark.parametrize(("transport", "net", "sentence"), ERRORS, ids=[sentence for _, _, sentence in ERRORS])
def test_wrong_ones_are_told(transport: dict[str, Any], net: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(transport, net)
    problems = caught.value.problems
    assert len(problems) == 1 and sentence in problems[0], problems
    assert problems[0].startswith("demo.toml: network[0]")


SMP: dict[str, Any] = {"launch": {"cpus": 2, "trust_userspace": True}}


@pytest.mark.parametrize(
    ("transport", "net", "change", "sentence"),
    [
        ({"kind": "tap", "ifname": "t"}, {}, SMP, "tap panics a kernel with several CPUs"),
        ({"kind": "hybrid", "ifname": "t"}, {}, SMP, "hybrid panics a kernel with several CPUs"),
        ({"kind": "tap", "ifname": "t"}, {}, {"kernel": {"options": {"SMP": True}}}, "tap panics a kernel"),
        ({"kind": "fd", "fd": 20}, {"vec": False}, SMP, "vec: off panics a kernel with several CPUs"),
        ({"kind": "fd", "fd": 20}, {"address6": "auto"}, {"kernel": {"source": {"kind": "prebuilt"}}},
         'say kernel.modules = ["ipv6"]'),
        ({"kind": "fd", "fd": 20}, {}, {"rootfs": {"files": [{"path": "/etc/systemd/network/10-vec0.network",
                                                              "content": ""}]}}, "is made by network already"),
        ({"kind": "fd", "fd": 20}, {}, {"rootfs": {"init": "sysvinit", "files": [
            {"path": "/etc/network/interfaces", "content": ""}]}}, "is made by network already"),
    ],
)  # fmt: skip
def test_impossible_with_the_rest(
    transport: dict[str, Any], net: dict[str, Any], change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(transport, net, change)
    assert [sentence in problem for problem in caught.value.problems] == [True], caught.value.problems


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"kind": "tap", "ifname": "t"}, {"kind": "hybrid", "ifname": "t"}, "ifname"),
        ({"kind": "fd", "fd": 20}, {"kind": "fd", "fd": 20}, "fd"),
        ({"kind": "gre", **V4}, {"kind": "gre", **V4, "dst": "192.0.2.3"}, "src and rx_key"),
        ({**UDP, **V4}, {**UDP, **V4, "dstport": 15003}, "src and srcport"),
        ({**L2TP, **V4}, {**L2TP, **V4, "tx_session": 9}, "src and rx_session"),
    ],
)
def test_two_interfaces_cannot_share(first: dict[str, Any], second: dict[str, Any], what: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse({**BASE, "network": [{"transport": first}, {"transport": second}]}, "demo.toml")
    assert caught.value.problems == (f"demo.toml: network[1]: {what}: network[0] has the same",)


def test_a_kernel_can_be_too_old() -> None:
    made = recipe({"kind": "vde", "vnl": "vde:///v"}, change=NO_SANDBOX)
    assert list(too_old(made, (6, 1))) == ["network[0].transport: vde needs kernel 6.12 or newer"]
    assert list(too_old(made, (6, 12))) == list(too_old(made, None)) == []


def test_the_pinned_kernel_counts(tmp_path: Path) -> None:
    from umlbuild.host.files import Files
    change = {**NO_SANDBOX, "kernel": {"source": {"kind": "prebuilt"}}}
    made = recipe({"kind": "vde", "vnl": "vde:///v"}, change=change)
    lock = LOCK.model_copy(update={"kernel": (pin("user-mode-linux", "6.1um4+b13"), pin("tcc"))})
    with pytest.raises(RecipeError, match=r"network\[0\].transport: vde needs kernel 6.12"):
        plan_of(made, lock, Files(tmp_path, "demo.toml"), str, path=tmp_path / "demo.toml", mirrors={})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_every_kind_is_documented(kind: type[Any]) -> None:
    import sys

    text = sys.modules[kind.__module__].__doc__ or ""
    name = kind.model_fields["kind"].default
    assert text.startswith((f'`transport = {{ kind = "{name}"', f'`transport = "{name}"')) and "Source:" in text
