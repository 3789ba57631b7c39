"""The host's side of `[[network]]`: the bundle's `net`, and the same as text for ifupdown and networkd. Pure.

Source: ip-link(8), ip-l2tp(8), ip-tuntap(8), interfaces(5), systemd.netdev(5), systemd.link(5). The kernel's tunnels
have keys, sessions and cookies swapped: what UML sends, they receive. `l2spec_type` is UML's counter: 4 bytes or none.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import resources

from umlbuild.kinds.transports.gre import Gre
from umlbuild.kinds.transports.hybrid import Hybrid
from umlbuild.kinds.transports.l2tpv3 import L2tpv3
from umlbuild.kinds.transports.raw import Raw
from umlbuild.kinds.transports.tap import Tap
from umlbuild.recipe import Recipe
from umlbuild.recipe.network import Host, Network
from umlbuild.specs.hostnet import HostNetwork, Link

MARK = "#@SETTINGS@\n"
USER = "@USER@"
"""In the texts for files: the script puts the tap's owner there."""


def script_of(recipe: Recipe) -> str:
    """The text of the bundle's `net`, or "" if the machine needs nothing of the host."""
    network = network_of(recipe)
    return render(network) if network is not None else ""


def network_of(recipe: Recipe) -> HostNetwork | None:
    """What the host has to have, None for nothing."""
    links = tuple(link for net in recipe.network if (link := link_of(net)) is not None)
    if not links:
        return None
    root = any("net_raw" in net.transport.capabilities for net in recipe.network)
    return HostNetwork(name=recipe.name, links=links, root=root)


def link_of(net: Network) -> Link | None:
    """The host's side of one interface, if it has one."""
    transport, host = net.transport, net.host or Host()
    base = Link(
        kind="any", ifname=host.peer or "-", bridge=host.bridge, address=host.address, address6=host.address6,
        mtu=net.largest, create=host.create,
    )  # fmt: skip
    match transport:
        case Tap() | Hybrid():
            return base.model_copy(update={"kind": "tap", "ifname": transport.ifname, "user": host.user})
        case Raw():
            computes = {"ifname": transport.ifname, "computes": transport.via == "descriptor"}
            if host.peer is None:
                return base.model_copy(update={**computes, "create": False})
            return base.model_copy(update={**computes, "kind": "veth", "peer": host.peer})
        case Gre() if host.peer is not None:
            kind = "ip6gretap" if transport.v6 else "gretap"
            return base.model_copy(update={"kind": kind, "tunnel": tuple(_gre(transport))})
        case L2tpv3() if host.peer is not None:
            words = {"tunnel": tuple(_tunnel(transport)), "session": tuple(_session(transport, host.peer))}
            return base.model_copy(update={"kind": "l2tp", **words})
    return None


def render(network: HostNetwork) -> str:
    """The whole text of `net`."""
    text = (resources.files("umlbuild.launcher") / "net.sh").read_text()
    before, found, after = text.partition(MARK)
    assert found and MARK not in after
    settings = [
        ("NAME", network.name),
        ("ROOT", "1" if network.root else ""),
        ("LINKS", "\n".join(map(_row, network.links))),
        ("INTERFACES", interfaces_of(network)),
        ("NETWORKD", networkd_of(network)),
    ]
    return before + "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings) + after


def interfaces_of(network: HostNetwork) -> str:
    """Text for /etc/network/interfaces of a host with ifupdown and iproute2."""
    blocks = []
    bridges: set[str] = set()
    for link in network.links:
        if link.bridge is not None and link.bridge not in bridges:
            bridges.add(link.bridge)
            first = next(other for other in network.links if other.bridge == link.bridge)
            blocks.append(_interface(link.bridge, first, [f"ip link add name {link.bridge} type bridge"]))
        blocks.append(_interface(_end(link), link, _made(link), addressed=link.bridge is None))
    return "\n".join(blocks)


def networkd_of(network: HostNetwork) -> str:
    """Files for /etc/systemd/network, each under a line with its path."""
    files: dict[str, str] = {}
    for link in network.links:
        stem = f"/etc/systemd/network/30-uml-{_end(link)}"
        if link.create:
            files[f"{stem}.netdev"] = "\n".join(_netdev(link)) + "\n"
        addresses = [f"Address={a}" for a in (link.address, link.address6) if a is not None]
        own = [f"Bridge={link.bridge}"] if link.bridge is not None else addresses
        mtu = ["", "[Link]", f"MTUBytes={link.mtu}"]
        tunnel = [f"Tunnel={link.ifname}"] if link.kind in ("gretap", "ip6gretap") else []
        if link.kind != "any":
            body = ["[Match]", f"Name={_end(link)}", *mtu, "", "[Network]", *own, "ConfigureWithoutCarrier=yes"]
            files[f"{stem}.network"] = "\n".join(body) + "\n"
        if tunnel:
            files[f"{stem}.network"] += "# networkd wants `Tunnel=` in the file of the outer interface: " + (
                f"{tunnel[0]}\n"
            )
        if link.kind == "veth":
            lines = ["[Match]", f"Name={link.ifname}", *mtu, "ARP=no", "", "[Network]", "LinkLocalAddressing=no"]
            files[f"/etc/systemd/network/30-uml-{link.ifname}.network"] = "\n".join(lines) + "\n"
        if link.computes and link.peer is not None:
            lines = ["[Match]", f"OriginalName={link.peer}", "", "[Link]", "TransmitChecksumOffload=no"]
            lines += ["TCPSegmentationOffload=no", "TCP6SegmentationOffload=no", "GenericSegmentationOffload=no"]
            files[f"{stem}.link"] = "\n".join(lines) + "\n"
        if link.bridge is not None:
            at = f"/etc/systemd/network/30-uml-{link.bridge}"
            files[f"{at}.netdev"] = f"[NetDev]\nName={link.bridge}\nKind=bridge\n"
            new = f"[Match]\nName={link.bridge}\n\n[Network]\nConfigureWithoutCarrier=yes\n"
            known = files.get(f"{at}.network", new)
            files[f"{at}.network"] = known + "".join(f"{line}\n" for line in addresses if line not in known)
    return "\n".join(f"# {path}\n{text}" for path, text in files.items())


def _row(link: Link) -> str:
    """A line of LINKS: fields with spaces between, "-" for nothing; l2tp's session after a "/"."""
    fields = (
        link.kind, link.ifname, link.peer, link.bridge, link.address, link.address6, str(link.mtu),
        "create" if link.create else None, link.user, "computes" if link.computes else None,
    )  # fmt: skip
    rest = [*link.tunnel, *(["/", *link.session] if link.session else [])]
    return " ".join([*(field or "-" for field in fields), *rest])


def _end(link: Link) -> str:
    """The interface that the host uses."""
    return link.peer or link.ifname


def _interface(name: str, link: Link, made: list[str], *, addressed: bool = True) -> str:
    addresses = [a for a in (link.address, link.address6) if a is not None] if addressed else []
    lines = [f"auto {name}", f"iface {name} inet manual"]
    lines += [f"    pre-up {command} || true" for command in made]
    lines.append(f"    up ip link set dev {name} mtu {link.mtu} up" if made else f"    up ip link set dev {name} up")
    if link.kind == "any" and name == link.ifname:
        lines[-1] = f"    up ip link set dev {name} promisc on up"
    if link.kind == "veth" and name == link.peer:
        lines.append(f"    up ip link set dev {link.ifname} mtu {link.mtu} arp off promisc on up")
    if link.computes and name == link.peer:
        lines.append(f"    up ethtool -K {name} tx off tso off gso off")
    if not addressed and link.kind != "any":
        lines.append(f"    up ip link set dev {name} master {link.bridge}")
    lines += [f"    up ip addr replace {address} dev {name}" for address in addresses]
    lines += [f"    post-down {command} || true" for command in _unmade(name, link, made)]
    return "\n".join(lines) + "\n"


def _made(link: Link) -> list[str]:
    if not link.create:
        return []
    match link.kind:
        case "tap":
            return [f"ip tuntap add dev {link.ifname} mode tap user {link.user or USER}"]
        case "veth":
            return [f"ip link add name {link.ifname} type veth peer name {link.peer}"]
        case "l2tp":
            return [f"ip l2tp add tunnel {' '.join(link.tunnel)}", f"ip l2tp add session {' '.join(link.session)}"]
        case _:
            return [f"ip link add name {link.ifname} type {link.kind} {' '.join(link.tunnel)}"]


def _unmade(name: str, link: Link, made: list[str]) -> list[str]:
    if not made:
        return []
    if link.kind == "l2tp" and name == link.ifname:
        tunnel = link.tunnel[link.tunnel.index("tunnel_id") + 1]
        session = link.session[link.session.index("session_id") + 1]
        return [
            f"ip l2tp del session tunnel_id {tunnel} session_id {session}", f"ip l2tp del tunnel tunnel_id {tunnel}",
        ]  # fmt: skip
    return [f"ip link del dev {name}"]


def _gre(transport: Gre) -> Iterator[str]:
    yield from ("local", transport.dst, "remote", transport.src)
    if transport.rx_key is not None:
        yield from ("ikey", str(transport.tx_key), "okey", str(transport.rx_key))
    if transport.sequence:
        # A sequence number that is always 0 would be thrown away as a repetition.
        yield from ["oseq"] if transport.pin_sequence else ["iseq", "oseq"]


def _tunnel(transport: L2tpv3) -> Iterator[str]:
    # No tunnel id is in L2TPv3 data packets; the session's makes it unique.
    yield from ("tunnel_id", str(transport.tx_session), "peer_tunnel_id", str(transport.rx_session))
    yield from ("encap", "udp" if transport.udp else "ip", "local", transport.dst, "remote", transport.src)
    if transport.udp:
        yield from ("udp_sport", str(transport.dstport), "udp_dport", str(transport.srcport))


def _session(transport: L2tpv3, name: str) -> Iterator[str]:
    yield from ("name", name, "tunnel_id", str(transport.tx_session))
    yield from ("session_id", str(transport.tx_session), "peer_session_id", str(transport.rx_session))
    if transport.rx_cookie is not None and transport.tx_cookie is not None:
        digits = 16 if transport.cookie64 else 8
        yield from ("cookie", f"{transport.rx_cookie:0{digits}x}", "peer_cookie", f"{transport.tx_cookie:0{digits}x}")
    yield from ("l2spec_type", "default" if transport.counter else "none")


def _netdev(link: Link) -> Iterator[str]:
    kind = "veth" if link.kind == "veth" else link.kind
    yield from ("[NetDev]", f"Name={_end(link)}", f"Kind={kind}", "")
    words = dict(zip(link.tunnel, link.tunnel[1:], strict=False))
    match link.kind:
        case "tap":
            yield from ("[Tap]", f"User={link.user or USER}", "VNetHeader=yes")
        case "veth":
            yield from ("[Peer]", f"Name={link.ifname}")
        case "gretap" | "ip6gretap":
            yield from ("[Tunnel]", f"Local={words['local']}", f"Remote={words['remote']}")
            if "ikey" in words:
                yield from (f"InputKey={words['ikey']}", f"OutputKey={words['okey']}")
            if "oseq" in link.tunnel:
                yield "# networkd has no sequence numbers: use `net up`"
        case "l2tp":
            session = dict(zip(link.session, link.session[1:], strict=False))
            yield from ("[L2TP]", f"TunnelId={words['tunnel_id']}", f"PeerTunnelId={words['peer_tunnel_id']}")
            yield from (f"Local={words['local']}", f"Remote={words['remote']}", f"EncapsulationType={words['encap']}")
            if "udp_sport" in words:
                yield from (f"UDPSourcePort={words['udp_sport']}", f"UDPDestinationPort={words['udp_dport']}")
            yield from ("", "[L2TPSession]", f"Name={link.ifname}", f"SessionId={session['session_id']}")
            yield from (f"PeerSessionId={session['peer_session_id']}", f"Layer2SpecificHeader={session['l2spec_type']}")
            if "cookie" in session:
                yield "# networkd has no cookies: use `net up`"
        case "any":
            pass
