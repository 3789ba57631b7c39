"""`transport = { kind = "hybrid", ifname = "tap0" }`: a tap to send, a packet socket on it to receive many at once.

Needs what `tap` needs and CAP_NET_RAW in the host's network namespace: the launcher must be started with it, see
docs/network.md. UML installs a filter that drops its own frames; that of the recipe replaces it, and does that, too.
It panics kernels with several CPUs (SMP) when the interface comes up. Measure before you choose it over `tap`.

Source: arch/um/drivers/vector_user.c user_init_hybrid_fds; uml-facts 2.2 and 2.4.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.kinds.transports.base import TransportModel
from umlbuild.kinds.transports.names import Ifname


class Hybrid(TransportModel):
    """A tap interface, read by a packet socket."""

    HOST_NETWORK: ClassVar[bool] = True
    PANICS_SMP: ClassVar[bool] = True
    FILTERED: ClassVar[bool] = True
    EGRESS: ClassVar[bool] = True

    kind: Literal["hybrid"] = "hybrid"
    ifname: Ifname
    """Name of the host's tap interface."""
    allow_guest_bpf: bool = False
    """Let guest root replace the filter (`ethtool -f`); where loading fails, there is none afterwards. Dangerous."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        return ("net_raw",)

    @property
    def host_paths(self) -> tuple[str, ...]:
        return ("/dev/net/tun",)

    @property
    def egress_device(self) -> str | None:
        return self.ifname

    @property
    def claims(self) -> tuple[tuple[str, object], ...]:
        return (("ifname", self.ifname),)

    def options(self) -> tuple[tuple[str, str], ...]:
        pairs = [("ifname", self.ifname)]
        if self.allow_guest_bpf:
            pairs.append(("bpfflash", "1"))
        return tuple(pairs)
