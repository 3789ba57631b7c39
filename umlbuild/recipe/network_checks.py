"""Combinations of `[[network]]` that cannot work. Pure; `checks` tells them with the others."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from umlbuild.kinds.transports import user as slirp
from umlbuild.kinds.transports.hybrid import Hybrid
from umlbuild.kinds.transports.raw import Raw
from umlbuild.kinds.transports.tap import Tap
from umlbuild.recipe import Recipe
from umlbuild.recipe.network import Host, Network

TAPS = ("tap", "hybrid")
"""Transports whose interface on the host is a tap, which belongs to a user."""

TAP_MTU = 65_521
"""Source: drivers/net/tun.c, MAX_MTU less the Ethernet header (`ip -d link` says maxmtu)."""

TUNNELS = ("gre", "l2tpv3")
"""Transports whose other side can be a tunnel interface of the host."""


def problems(recipe: Recipe) -> Iterator[str]:
    """All of them, interface by interface."""
    for number, net in enumerate(recipe.network):
        at = f"network[{number}]"
        yield from (f"{at}.{problem}" for problem in (*_transport(recipe, net), *_addresses(net), *_routes(net)))
        if "/" in net.address6 or net.address6 == "auto":
            yield from (f"{at}.{problem}" for problem in _ipv6(recipe))
        if net.host is not None:
            yield from (f"{at}.{problem}" for problem in _host(net, net.host))
    yield from too_old(recipe, recipe.kernel.source.version_of())
    yield from _user_networks(recipe)
    yield from _twice(recipe)


def too_old(recipe: Recipe, version: tuple[int, int] | None) -> Iterator[str]:
    """Transports that a kernel of this version does not have; a package's version is known once it is pinned."""
    for number, net in enumerate(recipe.network):
        if version is not None and version < net.transport.MINIMUM:
            least = ".".join(map(str, net.transport.MINIMUM))
            yield f"network[{number}].transport: {net.transport.kind} needs kernel {least} or newer"


def _transport(recipe: Recipe, net: Network) -> Iterator[str]:
    if net.transport.kind in TAPS and net.largest > TAP_MTU:
        yield f"mtu: a tap carries at most {TAP_MTU} bytes"
    transport, sandbox = net.transport, recipe.launch.sandbox
    if transport.RUNS_PROGRAM and sandbox.CONFINES:
        yield (
            f"transport: {transport.kind} runs the host's {transport.RUNS_PROGRAM}, and a sandbox has no programs; "
            "use bess or fd, or launch.sandbox = \"none\""
        )
    if transport.kind == "bess" and transport.src is not None and sandbox.CONFINES:
        yield "transport.src: the sandbox has no place for this socket; leave it out, or launch.sandbox = \"none\""
    if recipe.launch.cpus > 1 or recipe.kernel.options.get("SMP") in (True, "y"):
        if transport.PANICS_SMP:
            yield (
                f"transport: {transport.kind} panics a kernel with several CPUs when the interface comes up "
                "(vector_reset_stats); use raw, bess or fd"
            )
        elif not net.vec:
            yield "vec: off panics a kernel with several CPUs when the interface comes up (vector_reset_stats)"


def _addresses(net: Network) -> Iterator[str]:
    for family, address, gateway in (("", net.address, net.gateway), ("6", net.address6, net.gateway6)):
        if gateway is not None and "/" not in address:
            yield f"gateway{family}: needs a fixed address{family}"
        if "/" in address and (":" in address) != (family == "6"):
            yield f"address{family}: {address} is of the other family"
        elif gateway is not None and (":" in gateway) != (family == "6"):
            yield f"gateway{family}: {gateway} is of the other family"
        elif gateway is not None and "/" in address and (wrong := _unreachable(gateway, address)):
            yield f"gateway{family}: {wrong}"


def _unreachable(router: str, address: str) -> str:
    """Why an interface with this address cannot use the router; "" if it can."""
    own, other = ipaddress.ip_interface(address), ipaddress.ip_address(router)
    if own.ip == other:
        return f"{router} is the machine's own address"
    if other in own.network or (other.version == 6 and other.is_link_local):
        return ""
    return f"{router} is not in the network of {address}"


def _routes(net: Network) -> Iterator[str]:
    for number, route in enumerate(net.routes):
        at = f"routes[{number}]"
        if (":" in route.to) != (":" in route.via):
            yield f"{at}: {route.to} and {route.via} are of different families"
            continue
        own = net.address6 if ":" in route.via else net.address
        if own == "none":
            yield f"{at}.via: the interface has no address of this family"
        elif "/" in own and (":" in own) == (":" in route.via) and (wrong := _unreachable(route.via, own)):
            yield f"{at}.via: {wrong}"


def _ipv6(recipe: Recipe) -> Iterator[str]:
    kernel = recipe.kernel
    if kernel.source.kind == "prebuilt" and "ipv6" not in kernel.modules:
        # Source: the configurations of 6.1.176 and 6.12.113. Loading on demand comes after lock_modules.
        yield "address6: the distribution's kernels have IPv6 as a module; say kernel.modules = [\"ipv6\"]"


def _host(net: Network, host: Host) -> Iterator[str]:
    kind = net.transport.kind
    if net.transport.kind not in (*TAPS, *TUNNELS, "raw"):
        yield f"host: {kind} has no interface on the host"
        return
    if host.user is not None and kind not in TAPS:
        yield "host.user: only a tap belongs to a user"
    if host.peer is not None and kind in TAPS:
        yield "host.peer: a tap has none: the interface itself is the host's end"
    if host.peer is None and kind in TUNNELS:
        yield "host.peer: is missing: the name of the host's tunnel interface"
    if host.peer is None and kind == "raw" and host.create:
        yield "host.peer: is missing: the other end of the veth pair (or create = false for an interface that is there)"
    if kind == "raw" and not host.create and host.peer is None and (host.address or host.address6 or host.bridge):
        yield "host: an interface without a peer gets no address and no bridge here: its frames are the guest's"
    own = [net.transport.ifname] if isinstance(net.transport, Tap | Hybrid | Raw) else []
    names = [*own, *(name for name in (host.peer, host.bridge) if name is not None)]
    if len(names) > len(set(names)):
        yield "host: interface, peer and bridge need different names"
    for family, address, guest in (("", host.address, net.address), ("6", host.address6, net.address6)):
        if address is None:
            continue
        if (":" in address) != (family == "6"):
            yield f"host.address{family}: {address} is of the other family"
        elif "/" in guest and (":" in guest) == (family == "6"):
            mine, its = ipaddress.ip_interface(address), ipaddress.ip_interface(guest)
            if mine.ip == its.ip:
                yield f"host.address{family}: {mine.ip} is the guest's address"
            elif mine.network != its.network:
                yield f"host.address{family}: {address} and the guest's {guest} are not in one network"


def _user_networks(recipe: Recipe) -> Iterator[str]:
    """slirp4netns gives out one fixed network, to one machine."""
    mine = [number for number, net in enumerate(recipe.network) if net.transport.kind == "user"]
    for number in mine[1:]:
        yield f"network[{number}].transport: network[{mine[0]}] is \"user\" already, and has the same addresses"
    for number in mine:
        net, at = recipe.network[number], f"network[{number}]"
        assert isinstance(net.transport, slirp.User)
        if "/" in net.address:
            address = ipaddress.IPv4Interface(net.address)
            if address.ip not in slirp.NETWORK or str(address.ip) in slirp.TAKEN:
                yield (
                    f"{at}.address: {net.address}: with transport \"user\" the guest is in {slirp.NETWORK}, and "
                    f"{' and '.join(slirp.TAKEN)} are taken; use \"dhcp\" or {slirp.GUEST}/24"
                )
        if net.gateway not in (None, slirp.TAKEN[0]):
            yield f"{at}.gateway: is {slirp.TAKEN[0]} with transport \"user\""
        if net.address6 == "auto" and not net.transport.ipv6:
            yield f"{at}.address6: nobody answers there; say transport.ipv6 = true, too"
        if net.largest > slirp.MTU_LIMIT:
            yield f"{at}.mtu: slirp4netns takes {slirp.MTU_LIMIT} at most"


def _twice(recipe: Recipe) -> Iterator[str]:
    seen: dict[tuple[str, object], int] = {}
    for number, net in enumerate(recipe.network):
        own = [*net.transport.claims]
        own += [("mac", net.mac)] if net.mac else []
        if net.host is not None and net.host.peer is not None:
            own.append(("ifname", net.host.peer))
        for family, address in (("", net.address), ("6", net.address6)):
            own += [(f"address{family}", address)] if "/" in address else []
        for what, value in own:
            if (what, value) in seen:
                yield f"network[{number}]: {what}: network[{seen[what, value]}] has the same"
            seen.setdefault((what, value), number)
