"""What follows from `[[network]]`: the guest's files, and the host's, as tables of recipes and texts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from test_network_options import L2TP, UDP, V4, V6, recipe

from umlbuild.plan import guestnet, hostnet
from umlbuild.plan.contributions import guest_of, packages_of
from umlbuild.recipe import Recipe

TAP: dict[str, Any] = {"kind": "tap", "ifname": "tap0"}
FULL: dict[str, Any] = {
    "address": "192.168.4.2/30", "gateway": "192.168.4.1", "address6": "fd00::2/64", "gateway6": "fe80::1",
    "routes": [{"to": "10.0.0.0/8", "via": "192.168.4.1"}, {"to": "fd01::/16", "via": "fd00::1"}],
    "dns": ["192.0.2.53", "2001:db8::53"],
}  # fmt: skip
SYSVINIT = {"rootfs": {"init": "sysvinit"}}
BARE = {"rootfs": {"init": "busybox", "bootstrap": "extract"}}


def guest_files(made: Recipe) -> dict[str, str]:
    return {e.path: e.content if e.content is not None else e.target for e in guestnet.entries_of(made, guest_of(made))}


GUEST: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {}, "/etc/systemd/network/10-vec0.network", """\
[Match]
Name=vec0

[Network]
DHCP=ipv4
IPv6AcceptRA=no
LinkLocalAddressing=no

[DHCPv4]
ClientIdentifier=mac
"""),
    ({}, {}, "/etc/resolv.conf", "../run/systemd/resolve/resolv.conf"),
    (FULL, {}, "/etc/systemd/network/10-vec0.network", """\
[Match]
Name=vec0

[Network]
DHCP=no
IPv6AcceptRA=no
Address=192.168.4.2/30
Address=fd00::2/64
Gateway=192.168.4.1
Gateway=fe80::1
DNS=192.0.2.53
DNS=2001:db8::53

[Route]
Destination=10.0.0.0/8
Gateway=192.168.4.1

[Route]
Destination=fd01::/16
Gateway=fd00::1
"""),
    (FULL, {}, "/etc/resolv.conf", "nameserver 192.0.2.53\nnameserver 2001:db8::53\n"),
    ({"address": "none"}, {}, "/etc/systemd/network/10-vec0.network", """\
[Match]
Name=vec0

[Link]
RequiredForOnline=no

[Network]
DHCP=no
IPv6AcceptRA=no
LinkLocalAddressing=no
"""),
    ({}, {"rootfs": {"packages": ["ifupdown"]}}, "/etc/network/interfaces",
     "auto lo\niface lo inet loopback\n\nauto vec0\niface vec0 inet dhcp\n"),
    (FULL, SYSVINIT, "/etc/network/interfaces", """\
auto lo
iface lo inet loopback

auto vec0
iface vec0 inet static
    address 192.168.4.2
    netmask 255.255.255.252
    gateway 192.168.4.1
    up ip route add 10.0.0.0/8 via 192.168.4.1 dev vec0
iface vec0 inet6 static
    address fd00::2
    netmask 64
    gateway fe80::1
    up ip -6 route add fd01::/16 via fd00::1 dev vec0
"""),
    ({"address": "none", "address6": "auto"}, SYSVINIT, "/etc/network/interfaces", """\
auto lo
iface lo inet loopback

auto vec0
iface vec0 inet manual
    up ip link set dev vec0 up
iface vec0 inet6 auto
"""),
    ({"address6": "auto"}, BARE, "/etc/network/interfaces", """\
auto vec0
iface vec0 inet dhcp
iface vec0 inet6 manual
    up ip link set dev vec0 up
"""),
]  # fmt: skip


@pytest.mark.parametrize(("net", "change", "path", "text"), GUEST)
def test_files_of_the_guest(net: dict[str, Any], change: dict[str, Any], path: str, text: str) -> None:
    assert guest_files(recipe(TAP, net, change))[path] == text


@pytest.mark.parametrize(
    ("net", "change", "packages"),
    [
        ({}, {}, {"iproute2", "systemd-resolved"}),
        ({}, {"rootfs": {"suite": "bullseye"}}, {"iproute2"}),
        (FULL, {}, {"iproute2"}),
        ({}, {"rootfs": {"packages": ["ifupdown"]}}, {"ifupdown", "iproute2", "udhcpc"}),
        ({}, SYSVINIT, {"ifupdown", "iproute2", "udhcpc"}),
        (FULL, SYSVINIT, {"ifupdown", "iproute2"}),
        ({}, {"rootfs": {"init": "busybox"}}, {"ifupdown", "iproute2", "udhcpc"}),
        ({}, BARE, set()),
    ],
)
def test_packages_of_the_guest(net: dict[str, Any], change: dict[str, Any], packages: set[str]) -> None:
    some = {"ifupdown", "iproute2", "udhcpc", "systemd-resolved"}
    assert set(packages_of(recipe(TAP, net, change))) & some == packages


def test_a_bare_root_has_the_clients_script_and_what_ifup_wants() -> None:
    found = guest_files(recipe(TAP, {}, BARE))
    assert set(found) >= {"/etc/udhcpc/default.script", "/etc/network/if-up.d", "/var/run"}


HOST = {"address": "192.168.4.1/30"}
ROWS: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
    (TAP, {}, "tap tap0 - - - - 1500 create - -"),
    (TAP, {"mtu": 9000, "host": {**HOST, "address6": "fd00::1/64", "user": "ann", "bridge": "br0"}},
     "tap tap0 - br0 192.168.4.1/30 fd00::1/64 9000 create ann -"),
    ({"kind": "hybrid", "ifname": "t"}, {"host": {"create": False}}, "tap t - - - - 1500 - - -"),
    ({"kind": "raw", "ifname": "e"}, {"host": {"peer": "p", **HOST}},
     "veth e p - 192.168.4.1/30 - 1500 create - computes"),
    ({"kind": "raw", "ifname": "e", "via": "kernel"}, {"host": {"peer": "p"}}, "veth e p - - - 1500 create - -"),
    ({"kind": "raw", "ifname": "eth1"}, {}, "any eth1 - - - - 1500 - - computes"),
    ({"kind": "gre", **V4}, {}, None),
    ({"kind": "gre", **V4}, {"host": {"peer": "g", **HOST}},
     "gretap g - - 192.168.4.1/30 - 1500 create - - local 192.0.2.2 remote 192.0.2.1"),
    ({"kind": "gre", **V6, "rx_key": 5, "tx_key": 6, "sequence": True}, {"host": {"peer": "g"}},
     "ip6gretap g - - - - 1500 create - - local 2001:db8::2 remote 2001:db8::1 ikey 6 okey 5 iseq oseq"),
    ({"kind": "gre", **V4, "sequence": True, "pin_sequence": True}, {"host": {"peer": "g"}},
     "gretap g - - - - 1500 create - - local 192.0.2.2 remote 192.0.2.1 oseq"),
    ({**L2TP, **V4, "rx_cookie": 0xA, "tx_cookie": 0xB}, {"host": {"peer": "l"}},
     "l2tp l - - - - 1500 create - - tunnel_id 8 peer_tunnel_id 7 encap ip local 192.0.2.2 remote 192.0.2.1 / "
     "name l tunnel_id 8 session_id 8 peer_session_id 7 cookie 0000000a peer_cookie 0000000b l2spec_type none"),
    ({**UDP, **V6, "rx_cookie": 0xA, "tx_cookie": 1 << 63, "cookie64": True, "counter": True}, {"host": {"peer": "l"}},
     "l2tp l - - - - 1500 create - - tunnel_id 8 peer_tunnel_id 7 encap udp local 2001:db8::2 remote 2001:db8::1 "
     "udp_sport 15002 udp_dport 15001 / name l tunnel_id 8 session_id 8 peer_session_id 7 cookie 000000000000000a "
     "peer_cookie 8000000000000000 l2spec_type default"),
    ({"kind": "fd", "fd": 20}, {}, None),
    ({"kind": "bess", "dst": "/run/s"}, {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("transport", "net", "row"), ROWS)
def test_what_the_host_is_told(transport: dict[str, Any], net: dict[str, Any], row: str | None) -> None:
    text = hostnet.script_of(recipe(transport, net))
    assert bool(text) is (row is not None)
    if row is not None:
        found = re.search(r"^LINKS=(.*)$", text, re.MULTILINE)
        assert found is not None and found[1].strip("'") == row


def test_text_for_ifupdown() -> None:
    network = hostnet.network_of(recipe(TAP, {"host": {**HOST, "bridge": "br0"}}))
    assert network is not None
    assert hostnet.interfaces_of(network) == """\
auto br0
iface br0 inet manual
    pre-up ip link add name br0 type bridge || true
    up ip link set dev br0 mtu 1500 up
    up ip addr replace 192.168.4.1/30 dev br0
    post-down ip link del dev br0 || true

auto tap0
iface tap0 inet manual
    pre-up ip tuntap add dev tap0 mode tap user @USER@ || true
    up ip link set dev tap0 mtu 1500 up
    up ip link set dev tap0 master br0
    post-down ip link del dev tap0 || true
"""


def test_text_for_networkd() -> None:
    network = hostnet.network_of(recipe({"kind": "raw", "ifname": "e"}, {"host": {"peer": "p", **HOST}}))
    assert network is not None
    text = hostnet.networkd_of(network)
    assert "# /etc/systemd/network/30-uml-p.netdev\n[NetDev]\nName=p\nKind=veth\n\n[Peer]\nName=e\n" in text
    assert "[Match]\nName=p\n\n[Link]\nMTUBytes=1500\n\n[Network]\nAddress=192.168.4.1/30\n" in text
    assert "OriginalName=p\n\n[Link]\nTransmitChecksumOffload=no\n" in text
