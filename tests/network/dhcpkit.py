"""A DHCP server for one client: it leases one address and tells one name server, for tests of guests' clients."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading

_COOKIE = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5
_TYPE, _MASK, _ROUTER, _DNS, _LEASE, _SERVER = 53, 1, 3, 6, 51, 54


class DhcpServer:
    """Answers on an interface while inside. Source: RFC 2131 table 1 (the fields), RFC 2132 (the options)."""

    def __init__(self, ifname: str, own: str, lease: str, dns: str) -> None:
        network = ipaddress.ip_interface(own)
        self._own, self._lease = network.ip.packed, ipaddress.ip_address(lease).packed
        self._options = {
            _SERVER: self._own, _ROUTER: self._own, _MASK: network.netmask.packed,
            _DNS: ipaddress.ip_address(dns).packed, _LEASE: struct.pack("!I", 3600),
        }  # fmt: skip
        self.asked: list[int] = []
        """Types of the messages that came."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ifname.encode())
        self._socket.bind(("", 67))
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> DhcpServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                request = self._socket.recv(2048)
            except TimeoutError:
                continue
            kind = self._type_of(request)
            self.asked.append(kind)
            answer = {_DISCOVER: _OFFER, _REQUEST: _ACK}.get(kind)
            if answer is not None:
                self._socket.sendto(self._reply(request, answer), ("255.255.255.255", 68))

    def _type_of(self, message: bytes) -> int:
        at = message.index(_COOKIE) + 4
        while at + 1 < len(message) and message[at] != 255:
            if message[at] == 0:
                at += 1
                continue
            if message[at] == _TYPE:
                return message[at + 2]
            at += 2 + message[at + 1]
        return 0

    def _reply(self, request: bytes, kind: int) -> bytes:
        # op, htype, hlen, hops, xid; secs, flags; ciaddr; yiaddr; siaddr; giaddr; chaddr, sname, file
        head = b"\x02\x01\x06\x00" + request[4:8] + b"\0\0" + request[10:12] + bytes(4) + self._lease + self._own
        head += bytes(4) + request[28:44] + bytes(192) + _COOKIE
        options = {_TYPE: bytes([kind]), **self._options}
        return head + b"".join(bytes([code, len(value)]) + value for code, value in options.items()) + b"\xff"
