"""What gre and l2tpv3 have in common: two addresses of one family, and pairs of numbers. Pure.

UML takes the family from `v6=1`, not from the addresses, and resolves names by the host's NSS, which is not in the
sandbox: so the addresses are numbers, and `v6` follows from them. Source: vector_user.c user_init_socket_fds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, model_validator

from umlbuild.kinds.transports.base import TransportModel


def _outer(value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{value!r} is not an IPv4 or IPv6 address in numbers (names are not resolved)") from None
    if address.is_multicast:
        raise ValueError(f"{value} is a multicast address")
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            raise ValueError(f"{value} is an IPv4 address in IPv6 form; write {address.ipv4_mapped}")
        if address.is_link_local and not address.scope_id:
            raise ValueError(f"{value} is link-local: say on which interface (like {value}%eth0)")
    return value


OuterAddress = Annotated[str, AfterValidator(_outer)]


class Tunnel(TransportModel):
    """Frames in IP packets between two addresses."""

    HOST_NETWORK: ClassVar[bool] = True

    src: OuterAddress
    """This side's address, which the host has; numbers, no name."""
    dst: OuterAddress
    """The other side's address, of the same family."""

    @property
    def v6(self) -> bool:
        """Whether the outer packets are IPv6."""
        return ":" in self.dst

    def outer(self) -> tuple[tuple[str, str], ...]:
        """Options of the addresses."""
        return (("src", self.src), ("dst", self.dst), ("v6", str(int(self.v6))))

    def mistakes(self) -> Iterator[str]:
        """What does not fit together in the fields of a kind."""
        yield from ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        found = []
        if (":" in self.src) != (":" in self.dst):
            found.append(f"src {self.src} and dst {self.dst} are of different families")
        if ipaddress.ip_address(self.dst).is_unspecified:
            found.append(f"dst {self.dst} is nobody's address")
        found += self.mistakes()
        if found:
            raise ValueError("; ".join(found))
        return self


def pair(first: str, second: str, values: tuple[int | None, int | None]) -> Iterator[str]:
    """The mistake of giving only one of two numbers."""
    if (values[0] is None) != (values[1] is None):
        given, missing = (first, second) if values[1] is None else (second, first)
        yield f"{given} needs {missing}, too"
