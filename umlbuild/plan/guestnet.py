"""The guest's side of `[[network]]`: the files that bring its interfaces up. Pure.

Who reads them follows from the init: systemd has networkd (or ifupdown, if `rootfs.packages` names that), the others
have ifupdown, and a bare root has busybox's own ifup, which reads the same file.

Source: interfaces(5); systemd.network(5); networking/ifupdown.c of busybox, which knows neither "address A/LEN" nor
"inet6 auto", ends at an interface that has its address already (lo: the boot script switches it on), and wants its
run-parts directories and /var/run.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from umlbuild.kinds.inits.base import Guest
from umlbuild.kinds.inits.guest import text_of
from umlbuild.recipe import Recipe
from umlbuild.recipe.network import Network
from umlbuild.specs.rootfs import Entry

RESOLVED = "../run/systemd/resolve/resolv.conf"
"""Where systemd-resolved lists the servers that DHCP told."""


def entries_of(recipe: Recipe, guest: Guest) -> Iterator[Entry]:
    """Every file about the network, /etc/resolv.conf included."""
    if guest.manager == "networkd":
        for number, net in enumerate(recipe.network):
            yield Entry(path=f"/etc/systemd/network/10-vec{number}.network", content=networkd_of(number, net))
    elif recipe.network:
        bare = guest.manager == "busybox"
        yield Entry(path="/etc/network/interfaces", content=interfaces_of(recipe, bare=bare))
        if bare:
            for name in ("pre-up", "up", "down", "post-down"):
                yield Entry(path=f"/etc/network/if-{name}.d", type="dir", mode=0o755)
            yield Entry(path="/var/run", type="symlink", target="/run")
            yield Entry(path="/etc/udhcpc/default.script", content=text_of("udhcpc.sh"), mode=0o755)
    if guest.manager == "networkd" and guest.has_dhcp:
        yield Entry(path="/etc/resolv.conf", type="symlink", target=RESOLVED)
    else:
        yield Entry(path="/etc/resolv.conf", content=resolv_of(recipe))


def resolv_of(recipe: Recipe) -> str:
    """/etc/resolv.conf: the declared servers; nothing of the host's."""
    servers = dict.fromkeys(server for net in recipe.network for server in net.dns)
    return "".join(f"nameserver {server}\n" for server in servers)


def interfaces_of(recipe: Recipe, *, bare: bool = False) -> str:
    """/etc/network/interfaces: loopback and vec0, vec1, …; `bare`: for busybox's ifup."""
    blocks = [] if bare else ["auto lo\niface lo inet loopback\n"]
    for number, net in enumerate(recipe.network):
        blocks.append("".join(_stanzas(f"vec{number}", net, bare)))
    return "\n".join(blocks)


def networkd_of(number: int, net: Network) -> str:
    """The .network file of one interface."""
    dhcp = net.address == "dhcp"
    automatic = net.address6 == "auto"
    lines = ["[Match]", f"Name=vec{number}", ""]
    if net.address == "none" and net.address6 == "none":
        lines += ["[Link]", "RequiredForOnline=no", ""]
    lines += ["[Network]", f"DHCP={'ipv4' if dhcp else 'no'}", f"IPv6AcceptRA={'yes' if automatic else 'no'}"]
    if net.address6 == "none":
        lines.append("LinkLocalAddressing=no")
    lines += [f"Address={address}" for address in (net.address, net.address6) if "/" in address]
    lines += [f"Gateway={gateway}" for gateway in (net.gateway, net.gateway6) if gateway is not None]
    lines += [f"DNS={server}" for server in net.dns]
    if dhcp:
        # The MAC address is stable; networkd's own identifier comes from the machine-id, which is not.
        lines += ["", "[DHCPv4]", "ClientIdentifier=mac"]
    for route in net.routes:
        lines += ["", "[Route]", f"Destination={route.to}", f"Gateway={route.via}"]
    return "\n".join(lines) + "\n"


def _stanzas(name: str, net: Network, bare: bool) -> Iterator[str]:
    yield f"auto {name}\n"
    up = [f"    up ip link set dev {name} up\n"]
    routes4 = [_route(name, r.to, r.via) for r in net.routes if ":" not in r.to]
    routes6 = [_route(name, r.to, r.via) for r in net.routes if ":" in r.to]
    if net.address == "dhcp":
        yield from (f"iface {name} inet dhcp\n", *routes4)
    elif net.address == "none":
        yield from (f"iface {name} inet manual\n", *up, *routes4)
    else:
        yield from (f"iface {name} inet static\n", *_fixed(net.address, net.gateway), *routes4)
    if net.address6 == "auto":
        yield from (f"iface {name} inet6 {'manual' if bare else 'auto'}\n", *(up if bare else ()), *routes6)
    elif net.address6 != "none":
        yield from (f"iface {name} inet6 static\n", *_fixed(net.address6, net.gateway6), *routes6)


def _fixed(address: str, gateway: str | None) -> Iterator[str]:
    own = ipaddress.ip_interface(address)
    yield f"    address {own.ip}\n    netmask {own.netmask if own.version == 4 else own.network.prefixlen}\n"
    if gateway is not None:
        yield f"    gateway {gateway}\n"


def _route(name: str, to: str, via: str) -> str:
    return f"    up ip {'-6 ' if ':' in to else ''}route add {to} via {via} dev {name}\n"
