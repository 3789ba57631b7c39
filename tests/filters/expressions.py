"""Expressions and frames that have to do with each other: both take their numbers from the same small pools."""

from __future__ import annotations

import random

import frames
from hypothesis import strategies as st

EXPRESSIONS = (
    "arp", "ip", "ip6", "tcp", "udp", "icmp", "icmp6", "arp or icmp", "arp or icmp or tcp port 22",
    "not ether src 02:00:00:00:00:01", "ether host 02:00:00:00:00:02", "ether broadcast", "ether multicast",
    "ether proto 0x88cc", "host 10.9.9.1", "src host 10.9.9.2", "dst host 10.9.9.2", "net 10.9.0.0/16",
    "src net 192.168.4.0/24", "not net 10.0.0.0/8", "host fd00::1", "net fd00::/16", "port 53", "src port 22",
    "tcp dst port 443", "udp port 53", "tcp portrange 20-80", "portrange 1000-65535", "tcp[tcpflags] & tcp-syn != 0",
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn", "icmp[icmptype] == icmp-echo", "icmp6[0] == 135",
    "ip[6:2] & 0x1fff = 0", "ip[0] & 0xf > 5", "ip6[40] >= 133 and ip6[40] <= 136", "ip proto 47", "ip6 proto 58",
    "ip broadcast or ip multicast", "ip6 multicast", "less 60", "greater 100", "len > 60 and len < 90",
    "udp[4:2] + 8 > 20", "ether[12:2] * 2 > 0x1000", "ip[2:2] - 20 > 20", "ip[8] / 2 = 32", "ip[1] << 2 != 4",
    "ip[9] % 5 = 1", "ip and (ip[2:2] - ((ip[0] & 0xf) << 2)) > 8", "arp[6:2] = 1", "sctp or igmp or esp or ah",
    "rarp or stp or llc", "mpls", "pppoes", "tcp port 22 and not (src host 10.9.9.1 or dst net 192.168.0.0/16)",
    "(ip or ip6) and tcp and (port 22 or port 80 or port 443)", "1 = 1", "ip[0] = ip[0]", "tcp[13] ^ 2 = 0x10",
)  # fmt: skip

PORTS = (20, 21, 22, 53, 67, 68, 80, 123, 443, 1000, 5000, 8080, 40000, 65535)
HOSTS = ("10.9.9.1", "10.9.9.2", "10.1.2.3", "192.168.4.1", "224.0.0.5", "255.255.255.255", "8.8.8.8", "0.0.0.0")
HOSTS6 = ("fd00::1", "fd00::2", "2001:db8::7", "ff02::1", "::")
MACS = (
    bytes.fromhex("020000000001"), bytes.fromhex("020000000002"), b"\xff" * 6, bytes.fromhex("01005e000005"),
    bytes.fromhex("333300000001"), bytes.fromhex("0180c2000000"),
)  # fmt: skip

_PRIMITIVES = (
    *(e for e in EXPRESSIONS if " or " not in e and e not in ("1 = 1", "ip[0] = ip[0]")),
    *(f"{p}port {n}" for p in ("", "tcp ", "udp dst ", "src ") for n in PORTS),
    *(f"{d}host {h}" for d in ("", "src ", "dst ") for h in (*HOSTS, *HOSTS6)),
)
combinations = st.recursive(
    st.sampled_from(_PRIMITIVES),
    lambda inner: st.one_of(
        inner.map(lambda e: f"not ({e})"),
        st.tuples(inner, st.sampled_from((" and ", " or ")), inner).map(lambda t: f"({t[0]}){t[1]}({t[2]})"),
    ),
    max_leaves=6,
)


def frame(chance: random.Random) -> bytes:
    """Any frame: well-formed mostly, sometimes cut short, with bytes changed, or nothing but noise."""
    kind = chance.random()
    if kind < 0.03:
        return chance.randbytes(chance.randrange(80))
    whole = _whole(chance)
    if kind < 0.15:
        return whole[: chance.randrange(len(whole) + 1)]
    if kind < 0.3:
        changed = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed)
    return whole


def _whole(chance: random.Random) -> bytes:
    to, by = chance.choice(MACS), chance.choice(MACS)
    what = chance.random()
    if what < 0.1:
        made = frames.arp(chance.choice(HOSTS), chance.choice(HOSTS), by=by)
    elif what < 0.65:
        protocol, payload = _transport(chance, 1)
        options = chance.randbytes(4 * chance.choice((0, 0, 0, 1, 2, 10)))
        fragment = chance.choice((0, 0, 0, 0, 1, 185, 8191))
        packet = frames.ipv4(
            protocol, payload, source=chance.choice(HOSTS), target=chance.choice(HOSTS), options=options,
            fragment=fragment, more=chance.random() < 0.2,
        )  # fmt: skip
        made = frames.ethernet(0x0800, packet, to=to, by=by)
    elif what < 0.9:
        protocol, payload = _transport(chance, 58)
        if chance.random() < 0.1:  # behind a fragment header
            protocol, payload = 44, bytes((protocol, 0, 0, chance.choice((0, 1, 8)))) + chance.randbytes(4) + payload
        packet = frames.ipv6(protocol, payload, source=chance.choice(HOSTS6), target=chance.choice(HOSTS6))
        made = frames.ethernet(0x86DD, packet, to=to, by=by)
    else:
        made = frames.ethernet(
            chance.choice((0x88CC, 0x8035, 0x8847, 0x8864, 0x0026, 0x22F0)), chance.randbytes(40), to=to, by=by
        )
    if chance.random() < 0.1:
        made = frames.vlan(made, chance.randrange(4096), chance.choice((0x8100, 0x88A8)))
    return made


def _transport(chance: random.Random, icmp: int) -> tuple[int, bytes]:
    source, target = chance.choice(PORTS), chance.choice(PORTS)
    tail = chance.randbytes(chance.choice((0, 0, 3, 20, 100)))
    match chance.randrange(6):
        case 0 | 1:
            return 6, frames.tcp(source, target, flags=chance.randrange(64)) + tail
        case 2 | 3:
            return 17, frames.udp(source, target, tail)
        case 4:
            return icmp, frames.icmp(chance.choice((0, 3, 8, 11, 128, 133, 135, 136)), chance.randrange(3), tail)
    return chance.choice((2, 47, 50, 51, 132)), chance.randbytes(24)
