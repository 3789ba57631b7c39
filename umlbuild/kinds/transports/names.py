"""Values of vector options: UML splits at ',' and '=' and knows no quoting (uml-facts 1.2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

MAX_INT = 0x7FFFFFFF
"""Keys and sessions go through kstrtoint. A larger key means no key, a larger session panics the guest.

Source: vector_transports.c get_uint_param; uml-facts 2.2."""


def _ifname(value: str) -> str:
    if not 1 <= len(value) <= 15 or any(c in "/,=:\"'*?[\\" or not 33 <= ord(c) < 127 for c in value):
        raise ValueError(f"{value!r} is not a name of a network interface: at most 15 characters, no / , = :")
    if value in (".", "..") or value[0] == "-":
        raise ValueError(f"{value!r} is not a name of a network interface")
    return value


def _host_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not an absolute path")
    if any(c in ",=\"" or not 33 <= ord(c) < 127 for c in value):
        raise ValueError(f"{value!r} has a space, ',', '=' or '\"' in it, which UML cannot carry")
    return value


def _socket_path(value: str) -> str:
    if len(value.encode()) > 107:
        raise ValueError(f"{value!r} is longer than the 107 bytes that a socket's address holds")
    return _host_path(value)


def _word(value: str) -> str:
    if not value or any(c in ",=\"" or not 33 <= ord(c) < 127 for c in value):
        raise ValueError(f"{value!r} is empty or has a space, ',', '=' or '\"' in it, which UML cannot carry")
    return value


Ifname = Annotated[str, AfterValidator(_ifname)]
HostPath = Annotated[str, AfterValidator(_host_path)]
SocketPath = Annotated[str, AfterValidator(_socket_path)]
Word = Annotated[str, AfterValidator(_word)]
Key = Annotated[int, Field(ge=0, le=MAX_INT)]
Session = Annotated[int, Field(ge=1, le=MAX_INT)]
Cookie = Annotated[int, Field(ge=0, lt=1 << 64)]
Port = Annotated[int, Field(ge=1024, le=65_535)]
