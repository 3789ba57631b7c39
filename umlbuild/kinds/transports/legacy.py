"""The transports of UML's first network driver (`ethN=…`), gone in 7.x: what took their place.

Source: uml-facts 2.1; "um: Remove obsolete legacy network transports" (2025).
"""

REPLACEMENTS = {
    "tuntap": "tap",
    "ethertap": "tap",
    "daemon": "vde, or bess with a hub (uml_switch speaks only the old protocol)",
    "switch": "vde, or bess with a hub (uml_switch speaks only the old protocol)",
    "socket": "l2tpv3 with udp = true, or fd",
    "mcast": "l2tpv3 with udp = true between two machines, or tap in a bridge for more",
    "pcap": "raw",
    "slip": "bess with slirp4netns",
    "slirp": "bess with slirp4netns",
}
"""Its name → what to say instead."""
