"""Expressions of pcap-filter(7), before libpcap sees them: lines of a file, and words that must not be in them.

libpcap looks names up where it runs: hosts by DNS, ports in /etc/services. Two build hosts would then make two
filters of one recipe, so names are refused; so are words that mean something else here than they say.

Source: pcap-filter(7); libpcap scanner.l (words), gencode.c (inbound, vlan, protochain); what becomes of tags was
measured (tests/filters).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"\s+|(?P<address>(?:[0-9A-Fa-f]{1,4}:|::)[0-9A-Fa-f:.]*)|(?P<mac>[0-9A-Fa-f]{1,2}(?:[-.][0-9A-Fa-f]{1,4}){2,5}\b)"
    r"|(?P<word>[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)|(?P<number>[0-9][0-9A-Fa-fxX.]*)"
    r"|(?P<sign>&&|\|\||<<|>>|[<>=!]=|[-!()\[\]<>=+*/%&|^:])|(?P<other>.)"
)
_KEYWORDS = frozenset({
    "dst", "src", "host", "net", "mask", "port", "portrange", "proto", "ether", "link", "ip", "ip6", "arp", "rarp",
    "tcp", "udp", "icmp", "icmp6", "igmp", "igrp", "pim", "vrrp", "carp", "ah", "esp", "sctp", "aarp", "atalk",
    "decnet", "sca", "lat", "moprc", "mopdl", "iso", "esis", "isis", "clnp", "stp", "ipx", "netbeui", "loopback",
    "llc", "less", "greater", "byte", "broadcast", "multicast", "and", "or", "not", "len", "length", "mpls",
    "pppoed", "pppoes", "geneve", "icmptype", "icmpcode", "icmp6type", "icmp6code", "tcpflags", "icmp-echoreply",
    "icmp-unreach", "icmp-sourcequench", "icmp-redirect", "icmp-echo", "icmp-routeradvert", "icmp-routersolicit",
    "icmp-timxceed", "icmp-paramprob", "icmp-tstamp", "icmp-tstampreply", "icmp-ireq", "icmp-ireqreply",
    "icmp-maskreq", "icmp-maskreply", "icmp6-destinationunreach", "icmp6-packettoobig", "icmp6-timeexceeded",
    "icmp6-parameterproblem", "icmp6-echo", "icmp6-echoreply", "icmp6-multicastlistenerquery",
    "icmp6-multicastlistenerreportv1", "icmp6-multicastlistenerdone", "icmp6-routersolicit", "icmp6-routeradvert",
    "icmp6-neighborsolicit", "icmp6-neighboradvert", "icmp6-redirect", "tcp-fin", "tcp-syn", "tcp-rst", "tcp-push",
    "tcp-ack", "tcp-urg", "tcp-ece", "tcp-cwr",
})  # fmt: skip
_NO_SENSE = {
    "vlan": "the kernel takes VLAN tags off a frame before a filter sees it, so that it would never match",
    "inbound": "a filter sees only one direction",
    "outbound": "a filter sees only one direction",
    "ifindex": "a filter sees only one interface",
    "protochain": "it becomes a loop, which the kernel refuses; use proto",
    "gateway": "it needs names of hosts, which would be looked up where the bundle is built",
}
_PORTS = {
    "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "dns": 53, "bootps": 67, "bootpc": 68, "tftp": 69,
    "http": 80, "pop3": 110, "ntp": 123, "imap2": 143, "imap": 143, "snmp": 161, "https": 443, "syslog": 514,
    "submission": 587, "imaps": 993, "mysql": 3306, "postgresql": 5432,
}  # fmt: skip


def lines_of(text: str) -> list[tuple[int, str]]:
    """(line number, expression) of each line of a file of rules, without comments (`#`) and empty lines."""
    rows = ((number, " ".join(line.partition("#")[0].split())) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in rows if line]


def joined(lines: tuple[str, ...]) -> str:
    """One expression that is true where any of the lines is."""
    return lines[0] if len(lines) == 1 else " or ".join(f"({line})" for line in lines)


def problems(expression: str) -> Iterator[str]:
    """What is wrong with an expression that libpcap would not tell, or would not mind."""
    if not expression.strip():
        yield "an empty expression would let everything pass; leave the field out for that"
    depth = 0
    for match in _TOKEN.finditer(expression):
        text, column = match.group(), match.start() + 1
        depth += (text == "(") - (text == ")")
        if depth < 0:
            # Also within a longer expression, where others' lines stand in brackets.
            yield f"column {column}: a bracket is closed that is not open"
            return
        if match["other"]:
            yield f"column {column}: {text!r} has no meaning in an expression"
            return
        if match["word"] and (wrong := _wrong_word(text)):
            yield f"column {column}: {wrong}"
    if depth:
        yield "a bracket is not closed"


def _wrong_word(word: str) -> str:
    if word in _KEYWORDS:
        return ""
    if word in _NO_SENSE:
        return f'"{word}": {_NO_SENSE[word]}'
    if word in _PORTS:
        return f'"{word}": names are looked up where the bundle is built; write the number ({_PORTS[word]})'
    close = difflib.get_close_matches(word, [*_KEYWORDS, *_NO_SENSE], n=1, cutoff=0.6)
    guess = f'; did you mean "{close[0]}"?' if close and close[0] in _KEYWORDS else ""
    return f'"{word}": no word of an expression; names of hosts and services must be numbers{guess}'
