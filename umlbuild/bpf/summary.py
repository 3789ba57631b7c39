"""One line about an Ethernet frame: who, to whom, what. For people, who have tcpdump for the details."""

from __future__ import annotations

import ipaddress

_NAMES = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmp6", 132: "sctp"}
_WITH_PORTS = (6, 17, 132)


def of(frame: bytes) -> str:
    """E.g. "10.0.0.1:40000 > 10.0.0.2:22 tcp". A frame that ends too early is described as far as it goes."""
    if len(frame) < 14:
        return f"{len(frame)} bytes, too few for Ethernet"
    kind, payload = int.from_bytes(frame[12:14], "big"), frame[14:]
    if kind == 0x0800 and len(payload) >= 20:
        header = 4 * (payload[0] & 15)
        whole = int.from_bytes(payload[6:8], "big") & 0x1FFF == 0
        addresses = ipaddress.ip_address(payload[12:16]), ipaddress.ip_address(payload[16:20])
        text = _transport(*addresses, payload[9], payload[header:] if whole else b"")
        return text if whole else f"{text}, fragment"
    if kind == 0x86DD and len(payload) >= 40:
        addresses6 = ipaddress.ip_address(payload[8:24]), ipaddress.ip_address(payload[24:40])
        return _transport(*addresses6, payload[6], payload[40:])
    if kind == 0x0806 and len(payload) >= 28:
        words = {1: "who-has", 2: "is-at"}.get(int.from_bytes(payload[6:8], "big"), "other")
        return f"{ipaddress.ip_address(payload[14:18])} > {ipaddress.ip_address(payload[24:28])} arp {words}"
    return f"{frame[6:12].hex(':')} > {frame[:6].hex(':')} type 0x{kind:04x}"


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _transport(source: _Address, target: _Address, protocol: int, payload: bytes) -> str:
    name = _NAMES.get(protocol, f"protocol {protocol}")
    if protocol in _WITH_PORTS and len(payload) >= 4:
        left, right = ("[{}]:{}" if address.version == 6 else "{}:{}" for address in (source, target))
        ports = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
        return f"{left.format(source, ports[0])} > {right.format(target, ports[1])} {name}"
    return f"{source} > {target} {name}"
