"""Run in a network namespace of its own (`unshare -rn python netns.py TASK`): real packets, one JSON answer.

Started by test_filters_packets.py. Nothing here reaches the machine's own interfaces.
"""

from __future__ import annotations

import json
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import frames
from expressions import frame
from kernelsocket import attach

from umlbuild.bpf import compose, interpreter
from umlbuild.bpf.interpreter import Ancillary
from umlbuild.bpf.program import Program
from umlbuild.host import pcap

ALL_TYPES = 3
"""ETH_P_ALL."""
MARK = frames.ethernet(0x88B5, b"the end of a batch..............")
"""EtherType for local experiments."""
QUIET_S, BATCH_S = 0.05, 10.0


def run(*argv: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0 or not ok, (argv, done.stdout, done.stderr)
    return done


def veth() -> None:
    """v0 (the guest's end) and v1, silent but for us."""
    for name in ("default", "all"):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    run("ip", "link", "add", "name", "v0", "type", "veth", "peer", "name", "v1")
    for name in ("v0", "v1"):
        run("ip", "link", "set", name, "arp", "off")
        run("ip", "link", "set", name, "up")


def packet_socket(name: str, program: Program | None = None, kind: int = ALL_TYPES) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    if program is not None:
        attach(sock, program)
    sock.bind((name, kind))
    sock.setblocking(False)
    return sock


def drained(sock: socket.socket, *, until: bytes | None = None) -> list[bytes]:
    """What has come: up to and without `until`, or up to a short silence."""
    found: list[bytes] = []
    deadline = time.monotonic() + BATCH_S
    while time.monotonic() < deadline:
        if not select.select([sock], [], [], BATCH_S if until else QUIET_S)[0]:
            break
        one = sock.recv(1 << 17)
        if one == until:
            return found
        found.append(one)
    assert until is None, "the last frame did not come"
    return found


def exchanged(
    receivers: Sequence[socket.socket], witness: socket.socket, batch: Sequence[bytes], by: str = "v1"
) -> list[list[bytes]]:
    """What each receiver has of a batch that is sent by an interface; the witness has all of it."""
    with packet_socket(by) as sender:
        for one in (*batch, MARK):
            sender.send(one)
        drained(witness, until=MARK)
        return [[one for one in drained(sock) if one != MARK] for sock in receivers]


def kept() -> object:
    """AF_PACKET: of random frames, what comes through is what the interpreter lets through; own frames never do."""
    veth()
    chance = random.Random(1)
    compared = 0
    wrong: list[str] = []
    for expression in (None, *EXPRESSIONS):
        program = compose.incoming(pcap.compiled(expression) if expression else compose.ACCEPT_ALL)
        batch = [one for _ in range(100) if len(one := frame(chance)) >= 14 and not tagged(one)]
        with packet_socket("v0") as witness, packet_socket("v0", program) as filtered:
            got = exchanged([filtered], witness, batch)[0]
            expected = [one for one in batch if interpreter.passes(program, one)]
            if got != expected:
                wrong.append(f"{expression}: {len(got)} came, {len(expected)} should")
            compared += len(batch)
            with packet_socket("v0") as guest:
                for one in batch[:20]:
                    guest.send(one)
            seen = drained(witness)
            if drained(filtered) or len(seen) != len(batch[:20]):
                wrong.append(f"{expression}: own frames are heard (or not sent: {len(seen)})")
    return {"compared": compared, "wrong": wrong}


EXPRESSIONS = ("arp", "arp or icmp or tcp port 22", "ip6", "udp port 53", "not tcp", "ip[0] & 0xf > 5", "less 60",
               "host 10.9.9.1", "tcp[tcpflags] & tcp-syn != 0", "icmp6 or ip6 multicast")  # fmt: skip


def tagged(one: bytes) -> bool:
    return one[12:14] in (b"\x81\x00", b"\x88\xa8")


def tags() -> object:
    """What becomes of VLAN tags before a filter sees the frame."""
    veth()
    inside = frames.syn(22)
    rows = {}
    for name, program in (("all", compose.incoming()), ("port", compose.incoming(pcap.compiled("tcp port 22"))),
                          ("vlan", pcap.compiled("vlan 5"))):  # fmt: skip
        with packet_socket("v0") as witness, packet_socket("v0", program) as filtered:
            got = exchanged([filtered], witness, [frames.vlan(inside, 5)])[0]
            rows[name] = [one.hex() for one in got]
    known = Ancillary(vlan_tci=5, vlan_avail=1, vlan_tpid=0x8100)
    ours = interpreter.passes(compose.incoming(pcap.compiled("tcp port 22")), inside, known)
    return {"inside": inside.hex(), "ours": ours, **rows}


TYPES = (0x0800, 0x0806, 0x86DD, 0x88CC, 0x8035, 0x8847, 0x8864, 0x22F0)


def egress(script: str) -> object:
    """Which frames that the guest sends by v0 get beyond v1's ingress: before, with the rules, and after them."""
    veth()
    rules = pcap.compiled("arp or tcp port 443")
    chance = random.Random(2)
    batch = [one for _ in range(80) if (one := frame(chance))[12:14] in {kind.to_bytes(2, "big") for kind in TYPES}]
    batch += [frames.ethernet(0x0800, b"E")]  # a load beyond the end must not let it pass
    batch += [frames.syn(443), frames.syn(80), frames.arp("10.9.9.2", "10.9.9.1")]
    expected = [one for one in batch if interpreter.passes(rules, one)]

    def through() -> list[bytes]:
        # These sockets, bound to one type each, stand behind traffic control; those for all types before it.
        sockets = [packet_socket("v1", kind=kind) for kind in TYPES]
        try:
            with packet_socket("v1") as witness:
                got = [one for rows in exchanged(sockets, witness, batch, "v0") for one in rows]
        finally:
            for sock in sockets:
                sock.close()
        return sorted(got)

    rows: dict[str, object] = {"sent": len(batch), "expected": len(expected)}
    rows["before"] = through() == sorted(batch)
    rows["on"] = [run(script, "on", "vec0", "v1", ok=False).stderr for _ in range(2)]
    rows["with"] = through() == sorted(expected)
    rows["show"] = run(script, "show", "vec0", "v1", ok=False).returncode
    rows["off"] = run(script, "off", "vec0", "v1").returncode
    rows["after"] = through() == sorted(batch)
    rows["show after"] = run(script, "show", "vec0", "v1", ok=False).returncode
    run("tc", "filter", "add", "dev", "v1", "ingress", "pref", "3", "protocol", "all", "bpf", "bytecode", "1,6 0 0 1")
    rows["beside another"] = run(script, "on", "vec0", "v1", ok=False).returncode
    rows["no device"] = run(script, "on", "vec0", "nothere", ok=False).returncode
    return rows


def limit() -> object:
    """For each program: the least net.core.optmem_max with which the kernel takes it, and what the launcher wants."""
    rows: list[object] = []
    path = Path("/proc/sys/net/core/optmem_max")
    if not path.exists():
        return rows
    for text in (*EXPRESSIONS, " or ".join(f"tcp port {n}" for n in range(1, 150)),
                 " or ".join(f"ether[{n}] = {n}" for n in range(20, 200))):  # fmt: skip
        program = compose.incoming(pcap.compiled(text))
        low, high = 0, 1 << 20
        while high - low > 8:
            middle = (low + high) // 2
            path.write_text(str(middle))
            low, high = (middle, high) if pcap.refused_by_kernel(program) else (low, middle)
        rows.append([text[:30], [list(row) for row in program], high])
    return rows


if __name__ == "__main__":
    tasks = {"kept": kept, "tags": tags, "limit": limit}
    print(json.dumps(egress(sys.argv[2]) if sys.argv[1] == "egress" else tasks[sys.argv[1]]()))
