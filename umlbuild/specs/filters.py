"""Spec of the filters step: which frames each interface lets in and out."""

from __future__ import annotations

from typing import ClassVar

from umlbuild.specs.model import Model, Spec


class FrameFilter(Model):
    """The filters of one interface. Expressions are of pcap-filter(7); a frame passes if any of them matches."""

    interface: str
    """Its name in the guest (`vec0`)."""
    incoming: tuple[str, ...] | None = None
    """For what UML receives; () lets all pass but what the interface itself sent; None: no file."""
    outgoing: tuple[str, ...] | None = None
    """For what the guest sends, where it comes in on the host; None: no file."""

    @property
    def is_compiled(self) -> bool:
        """Whether libpcap is needed for it."""
        return bool(self.incoming or self.outgoing)


class FiltersSpec(Spec):
    """The filters stage. Input `tools` (entry with `tcpdump`; absent if no expression is to be compiled).

    Output: `filters/`, with `<interface>.bpf` for UML (an array of struct sock_filter), `<interface>.egress` for tc
    (its `bytecode-file`) and, if there is one of these, the script `egress` (0755).
    """

    STAGE: ClassVar[str] = "filters"

    filters: tuple[FrameFilter, ...]
    script: str | None = None
    """The text of `egress`."""
