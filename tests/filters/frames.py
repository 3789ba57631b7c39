"""Ethernet frames for tests, written from the RFCs' tables and by nothing that is tested here."""

from __future__ import annotations

import ipaddress
import struct

GUEST, PEER = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")


def ethernet(kind: int, payload: bytes, *, to: bytes = GUEST, by: bytes = PEER) -> bytes:
    return to + by + struct.pack(">H", kind) + payload


def arp(sender: str, target: str, *, by: bytes = PEER) -> bytes:
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
    body = by + ipaddress.ip_address(sender).packed + bytes(6) + ipaddress.ip_address(target).packed
    return ethernet(0x0806, head + body, to=b"\xff" * 6, by=by)


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    protocol: int, payload: bytes, *, source: str = "10.9.9.1", target: str = "10.9.9.2", options: bytes = b"",
    fragment: int = 0, more: bool = False,
) -> bytes:  # fmt: skip
    """`options` in whole words; `fragment` in units of 8 bytes."""
    words = 5 + len(options) // 4
    size = words * 4 + len(payload)
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    flags = fragment | (0x2000 if more else 0)

    def head(total: int) -> bytes:
        return struct.pack(">BBHHHBBH", 0x40 | words, 0, size, 1, flags, 64, protocol, total) + addresses + options

    return head(checksum(head(0))) + payload


def ipv6(protocol: int, payload: bytes, *, source: str = "fd00::1", target: str = "fd00::2") -> bytes:
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload


def tcp(source: int, target: int, *, flags: int = 2, pseudo: bytes = b"") -> bytes:
    """A segment without data; with the pseudo header's bytes its checksum is right."""
    def head(total: int) -> bytes:
        return struct.pack(">HHIIBBHHH", source, target, 1, 0, 0x50, flags, 1024, total, 0)

    return head(checksum(pseudo + head(0)) if pseudo else 0)


def udp(source: int, target: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(payload), 0) + payload


def icmp(kind: int, code: int = 0, payload: bytes = b"\0\1\0\1") -> bytes:
    head = struct.pack(">BBH", kind, code, 0)
    return struct.pack(">BBH", kind, code, checksum(head + payload)) + payload


def syn(target: int) -> bytes:
    """A whole frame: the peer's SYN to a port of the guest, which a guest without a listener answers with RST."""
    pseudo = ipaddress.ip_address("10.9.9.1").packed + ipaddress.ip_address("10.9.9.2").packed
    return ethernet(0x0800, ipv4(6, tcp(40000, target, pseudo=pseudo + struct.pack(">BBH", 0, 6, 20))))


def vlan(frame: bytes, number: int, tag: int = 0x8100) -> bytes:
    return frame[:12] + struct.pack(">HH", tag, number) + frame[12:]
