"""Port forwards as text: `[udp:][ADDRESS:]PORT->PORT`, the host's side first."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator

_FORM = re.compile(r"(?:(?P<protocol>[a-z]+):)?(?:(?P<address>[^:]*):)?(?P<port>\d+)->(?P<guest>\d+)")
_EXAMPLES = '"2222->22", "127.0.0.1:8080->80", "udp:127.0.0.1:5353->53"'
LOOPBACK = "127.0.0.1"
PRIVILEGED = 1024
"""Ports below it need a privilege on most hosts. Source: ip(7), net.ipv4.ip_unprivileged_port_start."""


def parts_of(text: str) -> tuple[str, str, int, int]:
    """(protocol, host address, host port, guest port). Raises: ValueError."""
    found = _FORM.fullmatch(text.replace(" ", ""))
    if found is None:
        raise ValueError(f"{text!r} is not a port forward; write it like {_EXAMPLES}")
    protocol, address = found["protocol"] or "tcp", found["address"]
    if protocol not in ("tcp", "udp"):
        raise ValueError(f"{text!r}: {protocol!r} is neither tcp nor udp, nor a numeric address of the host")
    try:
        address = str(ipaddress.IPv4Address(LOOPBACK if address is None else address))
    except ValueError:
        raise ValueError(
            f"{text!r}: {address!r} is not a numeric IPv4 address of the host ({LOOPBACK}; 0.0.0.0 for all)"
        ) from None
    ports = int(found["port"]), int(found["guest"])
    for port in ports:
        if not 1 <= port <= 65535:
            raise ValueError(f"{text!r}: a port is 1 to 65535, not {port}")
    return protocol, address, *ports


def _forward(text: str) -> str:
    protocol, address, port, guest = parts_of(text)
    return f"{protocol}:{address}:{port}->{guest}"


Forward = Annotated[str, AfterValidator(_forward)]
"""One port forward, in its full form after validation."""


def clash_of(one: str, other: str) -> bool:
    """Whether two forwards want the same port of the host."""
    first, second = parts_of(one), parts_of(other)
    anywhere = "0.0.0.0" in (first[1], second[1])
    return (first[0], first[2]) == (second[0], second[2]) and (first[1] == second[1] or anywhere)
