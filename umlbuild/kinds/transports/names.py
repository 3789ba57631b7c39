"""Values of vector options: UML splits at ',' and '=' and knows no quoting (uml-facts 1.2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _ifname(value: str) -> str:
    if not 1 <= len(value) <= 15 or any(c in "/,=:\"'" or not 33 <= ord(c) < 127 for c in value):
        raise ValueError(f"{value!r} is not a name of a network interface: at most 15 characters, no / , = :")
    return value


def _socket_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not an absolute path")
    if len(value.encode()) > 107:
        raise ValueError(f"{value!r} is longer than the 107 bytes that a socket's address holds")
    if any(c in ",=\"" or not 33 <= ord(c) < 127 for c in value):
        raise ValueError(f"{value!r} has a space, ',', '=' or '\"' in it, which UML cannot carry")
    return value


Ifname = Annotated[str, AfterValidator(_ifname)]
SocketPath = Annotated[str, AfterValidator(_socket_path)]
