"""Which frames an interface lets in, and which out: expressions of pcap-filter(7)."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from umlbuild.kinds.transports.names import Ifname
from umlbuild.specs.model import Model


class Filter(Model):
    """What the guest receives; all else is dropped before UML reads it. `filter = "EXPRESSION"` will do.

    What the interface itself sends is always dropped: some transports would hear it.
    """

    expression: str | None = None
    """An expression of pcap-filter(7), e.g. "arp or icmp or tcp port 22". Names of hosts and ports must be numbers."""
    file: str | None = None
    """Instead: a file of expressions, one a line, `#` begins a comment; what any line matches passes."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"expression": value} if isinstance(value, str) else value


class Egress(Model):
    """What the guest may send, for the kernel's traffic control on the host (`filters/egress` in the bundle).

    Nothing is implied: without "arp" there is no IPv4, and answers to what comes in must be allowed, too.
    """

    allow: tuple[str, ...] = ()
    """Expressions of pcap-filter(7); what any of them matches may leave."""
    file: str | None = None
    """Instead: a file of them, as of `filter`."""
    device: Ifname | None = None
    """Interface of the host where the guest's frames come in: the tap (the default), or a veth's other end."""
