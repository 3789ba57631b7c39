"""The bundle's `net` in a network namespace of the test's own: it makes, removes, and names what is in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netkit
import pytest
from netkit import command, ip, namespace
from test_network_options import L2TP, UDP, V4, V6, recipe

from umlbuild.plan import hostnet

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can put this process into a network namespace")

TAP: dict[str, Any] = {"kind": "tap", "ifname": "umlt0"}
HOST: dict[str, Any] = {"address": "10.80.0.1/30", "address6": "fd80::1/64", "bridge": "umlbr"}
PAIR: dict[str, Any] = {"kind": "raw", "ifname": "uml1"}


@pytest.fixture
def shelf() -> Iterator[Path]:
    yield from netkit.open_directory()


def script(directory: Path, transport: dict[str, Any], host: dict[str, Any], **net: Any) -> Path:
    path = directory / "net"
    path.write_text(hostnet.script_of(recipe(transport, {"host": host, **net})))
    path.chmod(0o755)
    return path


def said(path: Path, *words: str, shell: str = "", user: str = "") -> tuple[int, str]:
    """Exit status, and all that it says."""
    argv = [*([shell] if shell else []), str(path), *words]
    if shell == "busybox":
        argv.insert(1, "sh")
    if user:
        argv = ["setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups", "--inh-caps=-all", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def names() -> set[str]:
    return {line.split()[1].rstrip(":").split("@")[0] for line in ip("-o", "link").splitlines()}


@pytest.mark.parametrize("shell", ["", "busybox", "bash"])
def test_a_tap_in_a_bridge(shell: str, shelf: Path) -> None:
    if shell and shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    net = script(shelf, TAP, HOST, mtu=1400)
    with namespace(shelf):
        code, text = said(net, "status", shell=shell)
        assert (code, text) == (1, "umlt0: there is no such interface\n")
        code, text = said(net, "up", "--print", shell=shell)
        commands = [line for line in text.splitlines() if not line.startswith("#")]
        reasons = [line for line in text.splitlines() if line.startswith("#")]
        assert code == 0 and len(commands) == len(reasons) and all("CAP_NET_ADMIN" in reason for reason in reasons)
        assert names() == {"lo"}  # nothing was done
        assert said(net, "up", shell=shell) == (0, "")
        shown = ip("-d", "link", "show", "umlt0")
        assert "tun type tap" in shown and "user nobody" in shown
        assert said(net, "status", shell=shell) == (0, "demo: all that its network needs is there\n")
        assert said(net, "up", shell=shell) == (0, "demo: nothing to do\n")
        assert said(net, "down", shell=shell) == (0, "")
        assert names() == {"lo"}
        assert said(net, "down", shell=shell) == (0, "demo: nothing to do\n")
        # What is printed is what is done.
        for words in commands:
            command("sh", "-c", words)
        assert said(net, "up", shell=shell) == (0, "demo: nothing to do\n")


def test_a_veth_pair_computes_itself(shelf: Path) -> None:
    net = script(shelf, PAIR, {"peer": "uml1-host", "address": "10.80.0.1/30"})
    with namespace(shelf):
        assert said(net, "up") == (0, "")
        features = command("ethtool", "-k", "uml1-host")
        for name in ("tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload"):
            assert f"{name}: off" in features
        assert "NOARP" in ip("link", "show", "uml1") and "PROMISC" in ip("link", "show", "uml1")
        command("ethtool", "-K", "uml1-host", "tx", "on")
        assert said(net, "status")[1].startswith("uml1-host: leaves checksums to the machine")
        assert said(net, "up") == (0, "") and said(net, "status")[0] == 0
        assert said(net, "down") == (0, "") and names() == {"lo"}


def test_with_vnet_headers_the_pair_stays_as_it_is(shelf: Path) -> None:
    net = script(shelf, {**PAIR, "via": "kernel"}, {"peer": "uml1-host"})
    with namespace(shelf):
        assert said(net, "up") == (0, "") and "tx-checksumming: on" in command("ethtool", "-k", "uml1-host")


CONFLICTS: list[tuple[dict[str, Any], dict[str, Any], list[str], str]] = [
    (TAP, HOST, ["ip link add name umlt0 type veth peer name x"], "umlt0: is there, but is no tap"),
    (TAP, HOST, ["ip tuntap add dev umlt0 mode tun"], "umlt0: is a tun, not a tap"),
    (TAP, HOST, ["ip tuntap add dev umlt0 mode tap user root"], "umlt0: belongs to root, not to nobody"),
    (TAP, HOST, ["ip link add name umlbr type veth peer name x"], "umlbr: is there, but is no bridge"),
    (TAP, HOST, ["ip link add name b type bridge", "ip addr add 10.80.0.1/30 dev b"],
     "10.80.0.1/30: this address or its network is in use on b (10.80.0.1/30)"),
    (TAP, HOST, ["ip link add name b type bridge", "ip addr add fd80::7/64 dev b"], "is in use on b (fd80::7/64)"),
    (PAIR, {"peer": "p"}, ["ip link add name uml1 type bridge"], "uml1: is there, but is no veth"),
    (PAIR, {"peer": "p"}, ["ip link add name uml1 type veth peer name q"], "its peer is not p"),
    (PAIR, {"peer": "p"}, ["ip link add name p type bridge"], "p: is there, but uml1, whose peer it should be, is not"),
]  # fmt: skip


@pytest.mark.parametrize(("transport", "host", "before", "sentence"), CONFLICTS)
def test_what_is_in_the_way_is_named(
    transport: dict[str, Any], host: dict[str, Any], before: list[str], sentence: str, shelf: Path
) -> None:
    net = script(shelf, transport, host)
    with namespace(shelf):
        for words in before:
            command("sh", "-c", words)
        there = names()
        code, text = said(net, "status")
        assert code == 1 and sentence in text
        code, text = said(net, "up")
        assert code == 125 and sentence in text and "nothing was changed" in text and names() == there
        assert said(net, "down") == (0, "demo: nothing to do\n") and names() == there  # it was not ours


def test_what_is_missing_is_named(shelf: Path) -> None:
    net = script(shelf, TAP, HOST)
    with namespace(shelf):
        command(str(net), "up")
        ip("addr", "del", "10.80.0.1/30", "dev", "umlbr")
        ip("link", "set", "umlt0", "nomaster", "mtu", "1300", "down")
        code, text = said(net, "status")
        assert code == 1 and text.splitlines() == [
            "umlt0: is down", "umlt0: has the mtu 1300, not 1500", "umlt0: is not in the bridge umlbr",
            "umlbr: has not the address 10.80.0.1/30",
        ]  # fmt: skip
        assert said(net, "up") == (0, "") and said(net, "status")[0] == 0


def test_a_bridge_with_somebody_else_in_it_stays(shelf: Path) -> None:
    net = script(shelf, TAP, HOST)
    with namespace(shelf):
        command(str(net), "up")
        ip("tuntap", "add", "dev", "other", "mode", "tap")
        ip("link", "set", "other", "master", "umlbr")
        assert said(net, "down") == (0, "")
        assert names() == {"lo", "umlbr", "other"} and "10.80.0.1" not in ip("addr", "show", "umlbr")


def test_an_ordinary_user_may_look_and_not_touch(shelf: Path) -> None:
    net = script(shelf, TAP, HOST)
    with namespace(shelf):
        assert said(net, "status", user="nobody") == (1, "umlt0: there is no such interface\n")
        code, text = said(net, "up", user="nobody")
        assert code == 125 and "needs CAP_NET_ADMIN here" in text and f"fix: sudo {net} up" in text
        assert said(net, "up", "--print", user="nobody")[0] == 0


def test_an_interface_that_the_recipe_says_is_there(shelf: Path) -> None:
    net = script(shelf, TAP, {"create": False, "address": "10.80.0.1/30"})
    with namespace(shelf):
        code, text = said(net, "up")
        assert code == 125 and "the recipe says that it is there" in text
        ip("tuntap", "add", "dev", "umlt0", "mode", "tap", "user", "nobody")
        assert said(net, "up") == (0, "") and said(net, "status")[0] == 0
        assert said(net, "down") == (0, "") and "10.80.0.1" not in ip("addr", "show", "umlt0")


@pytest.mark.parametrize(
    ("transport", "wanted"),
    [
        ({"kind": "gre", **V6, "rx_key": 5, "tx_key": 6},
         "ip link add name t0 type ip6gretap local 2001:db8::2 remote 2001:db8::1 ikey 6 okey 5"),
        ({**UDP, **V4, "rx_cookie": 10, "tx_cookie": 11},
         "ip l2tp add session name t0 tunnel_id 8 session_id 8 peer_session_id 7 cookie 0000000a peer_cookie 0000000b "
         "l2spec_type none"),
        ({**L2TP, **V4}, "ip l2tp add tunnel tunnel_id 8 peer_tunnel_id 7 encap ip local 192.0.2.2 remote 192.0.2.1"),
    ],
)  # fmt: skip
def test_tunnels_are_printed(transport: dict[str, Any], wanted: str, shelf: Path) -> None:
    """Printed only: kernels without gretap and l2tp cannot make them."""
    net = script(shelf, transport, {"peer": "t0", "address": "10.80.0.1/30"})
    with namespace(shelf):
        code, text = said(net, "up", "--print")
        assert code == 0 and wanted in text.splitlines() and "ip addr replace 10.80.0.1/30 dev t0" in text.splitlines()


def test_texts_for_files_name_the_owner(shelf: Path) -> None:
    net = script(shelf, TAP, HOST)
    assert "mode tap user ann ||" in said(net, "print-interfaces", "--user", "ann")[1]
    assert "[Tap]\nUser=ann\n" in said(net, "print-networkd", "--user", "ann")[1]
    assert "@USER@" not in said(net, "print-interfaces")[1] + said(net, "print-networkd")[1]


@pytest.mark.parametrize("words", [(), ("aside",), ("up", "--frobnicate"), ("up", "--user"), ("up", "--user", "a b")])
def test_wrong_arguments(words: tuple[str, ...], shelf: Path) -> None:
    assert said(script(shelf, TAP, HOST), *words)[0] == 125
