"""Throughput of machines in their jail against the same kernel started by hand, in one run: the ratio is what counts.

    sudo .venv/bin/python -m benchmarks.network [--kernel recipes/router.toml] [--seconds 4] [--rounds 2] [tap raw …]

The guest measures with iperf3 against a server on the host (l2tpv3: on a second machine, started the same way), first
sending, then receiving. Both ways of starting take turns; of each the best round counts. All of it is in a network
namespace of its own. Prints a table, and JSON with --json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w

PROJECT = Path(__file__).parents[1]
INSIDE = "UMLBUILD_BENCHMARK_INSIDE"
HOST = "192.0.2.9"
"""An address of the host's for guests behind slirp4netns."""
BOOT_S = 60

SCRIPT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
ip link set lo up
ip addr add {address} dev vec0
ip link set vec0 up
ip route add default via {first}
until ping -c 1 -W 1 {first} >/dev/null; do sleep 0.2; done
[ {target} != server ] || {{ timeout {limit} iperf3 -s -1 >/dev/null; exec timeout {limit} iperf3 -s -1; }}
for way in "" -R; do
    until iperf3 -c {target} $way -t {seconds} -J >/tmp/result && grep -q sum_received /tmp/result; do sleep 0.3; done
    echo "result $(tr -d '\\n\\t' </tmp/result)"
done
"""


def networks(kind: str) -> tuple[dict[str, Any], str, str]:
    """The interface, whom to wait for, and whom to measure with."""
    host = {"address": "10.77.0.1/30"}
    match kind:
        case "tap":
            net = {"transport": {"kind": kind, "ifname": "uml0"}, "address": "10.77.0.2/30", "host": host}
            return net, "10.77.0.1", "10.77.0.1"
        case "raw" | "raw-kernel":
            via = "kernel" if kind == "raw-kernel" else "descriptor"
            net = {"transport": {"kind": "raw", "ifname": "uml0", "via": via}, "address": "10.77.0.2/30"}
            return {**net, "host": {**host, "peer": "uml0-host"}}, "10.77.0.1", "10.77.0.1"
        case "user":
            return {"transport": {"kind": kind}, "address": "10.0.2.15/24"}, "10.0.2.2", HOST
        case "l2tpv3":
            return {"transport": tunnel(1), "address": "10.77.0.1/30"}, "10.77.0.2", "10.77.0.2"
        case "l2tpv3-server":
            return {"transport": tunnel(2), "address": "10.77.0.2/30"}, "10.77.0.1", "server"
    raise SystemExit(f"{kind}: no such transport")


def tunnel(me: int) -> dict[str, Any]:
    ports = {"srcport": 15000 + me, "dstport": 15003 - me, "rx_session": me, "tx_session": 3 - me}
    return {"kind": "l2tpv3", "udp": True, "src": "127.0.0.1", "dst": "127.0.0.1", **ports}


def build(kind: str, kernel: dict[str, Any], seconds: int, place: Path) -> Path:
    """The bundle of one kind."""
    network, first, target = networks(kind)
    script = SCRIPT.format(
        address=network["address"], first=first, target=target, seconds=seconds, limit=4 * seconds + BOOT_S
    )
    command = ["/usr/local/bin/measure"]
    rootfs = {
        "suite": "bookworm",
        "packages": ["iperf3", "iproute2", "iputils-ping"],
        "init": {"kind": "script", "command": command},
        "files": [{"path": command[0], "mode": "0755", "content": script}],
    }
    data = {"format": 1, "name": kind, "kernel": kernel, "network": [network], "rootfs": rootfs}
    data |= {"image": {"kind": "ext4"}, "launch": {"memory": "256M"}}
    path = place / f"{kind}.toml"
    path.write_text(tomli_w.dumps(data))
    cache = os.environ.get("UMLBUILD_CACHE") or str(PROJECT / "cache")
    subprocess.run([sys.executable, "-m", "umlbuild.cli", "build", str(path)], cwd=place, check=True, timeout=3000,
                   stdout=sys.stderr, env={**os.environ, "UMLBUILD_CACHE": cache})  # fmt: skip
    return place / "dist" / kind


def by_hand(bundle: Path, place: Path) -> list[str]:
    """The kernel with the words that the launcher gives it, and no jail around."""
    run = [str(bundle / "run"), "--dry-run", "--ephemeral"]
    said = subprocess.run(run, check=True, capture_output=True, text=True, timeout=30).stdout
    words = shlex.split(said)
    at = max(number for number, word in enumerate(words) if word.endswith("/linux")) + 1
    kernel = []
    for word in words[at:]:
        name = word.partition("=")[0]
        if name == "ubd0":
            word = f"ubd0={place}/cow,{bundle}/root.img"
        elif name == "uml_dir":
            word = f"uml_dir={place}/"
        elif word.startswith("vec0:transport=raw,"):
            word = word.replace(",bpffile=filters/vec0.bpf", "")
        elif word.startswith("vec0:transport=bess,"):
            word = "vec0:" + ",".join(f"dst={place}/socket" if o.startswith("dst=") else o for o in word[5:].split(","))
        kernel.append(word)
    arch = ["setarch", os.uname().machine, "-R"] if "setarch" in words else []
    opened = []
    if any(",fd=200," in word for word in kernel):  # what else would open a packet socket by hand?
        opened = [
            str(bundle / "jail"),
            "packet",
            "uml0",
            "--filter",
            str(bundle / "filters/vec0.bpf"),
            "--fd",
            "200",
            "--",
        ]
    return [*opened, *arch, str(bundle / "linux"), *kernel]


@contextlib.contextmanager
def process(argv: list[str], **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A program, ended with its group in any case."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, text=True, start_new_session=True, **more) as one:
        try:
            yield one
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, 9)


@contextlib.contextmanager
def machine(bundle: Path, jailed: bool) -> Iterator[subprocess.Popen[str]]:
    """A machine whose output is a pipe."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        place = Path(name)
        argv, environment = [str(bundle / "run"), "--ephemeral"], dict(os.environ)
        if bundle.name == "raw-kernel":  # UML keeps CAP_NET_RAW, which only root has
            argv.append("--allow-root")
        if not jailed:
            argv, environment["TMPDIR"] = by_hand(bundle, place), "/dev/shm"
            if (preload := bundle / "lib/xstate.so").exists():
                environment["LD_PRELOAD"] = str(preload)
            if any("transport=bess" in word for word in argv):
                slirp = ["slirp4netns", "--target-type=bess", "--mtu=9000", f"{place}/socket"]
                stack.enter_context(process(slirp, stderr=subprocess.DEVNULL))
                time.sleep(0.5)
        yield stack.enter_context(
            process(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=place)
        )


def measured(kind: str, bundles: dict[str, Path], jailed: bool, limit_s: int) -> tuple[float, float]:
    """Gbit/s that the guest sends, and receives."""
    with contextlib.ExitStack() as stack:
        if kind == "l2tpv3":
            stack.enter_context(machine(bundles["l2tpv3-server"], jailed))
        else:
            stack.enter_context(process(["iperf3", "-s"], stdout=subprocess.DEVNULL))
        one = stack.enter_context(machine(bundles[kind], jailed))
        try:
            out, _ = one.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            out = (
                (error.stdout or b"").decode(errors="replace") if isinstance(error.stdout, bytes) else str(error.stdout)
            )
    ends = [json.loads(line.partition("result ")[2])["end"] for line in out.splitlines() if "result " in line]
    if len(ends) != 2:
        raise SystemExit(f"{kind}, {'in its jail' if jailed else 'by hand'}: no result:\n{out[-2000:]}")
    sent, received = (end["sum_received"]["bits_per_second"] / 1e9 for end in ends)
    return sent, received


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["tap", "raw", "raw-kernel", "l2tpv3", "user"])
    parser.add_argument("--kernel", type=Path, default=PROJECT / "recipes" / "router.toml", help="whose [kernel]")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if INSIDE in os.environ:
        measure(options, Path(os.environ[INSIDE]))
        return
    if os.getuid() != 0:
        raise SystemExit("taps and packet sockets need root; fix: sudo")
    kernel = tomllib.loads(options.kernel.read_text())["kernel"]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copytree(options.kernel.parent, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.lock.toml"))
        for kind in parts(options.kinds):
            build(kind, kernel, options.seconds, place)
        words = ["unshare", "-nm", sys.executable, "-m", "benchmarks.network", *sys.argv[1:]]
        raise SystemExit(subprocess.run(words, env={**os.environ, INSIDE: name}, check=False).returncode)


def parts(kinds: list[str]) -> list[str]:
    """The machines that are needed."""
    return [*kinds, *(["l2tpv3-server"] if "l2tpv3" in kinds else [])]


def measure(options: argparse.Namespace, place: Path) -> None:
    """Within the namespace: set up what each kind wants, measure, and print the table."""
    os.mknod(place / "tun", 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    (place / "tun").chmod(0o666)  # as udev has it, which containers do not
    for words in ("ip link set lo up", f"ip addr add {HOST}/32 dev lo", f"mount --bind {place}/tun /dev/net/tun"):
        subprocess.run(words.split(), check=True, timeout=30)
    bundles = {kind: place / "dist" / kind for kind in parts(options.kinds)}
    print(f"{'transport':<10} {'guest':<9} {'jailed':>7} {'by hand':>8}  ratio")
    found = []
    for kind in options.kinds:
        best = {True: (0.0, 0.0), False: (0.0, 0.0)}
        for number in range(2 * options.rounds):
            jailed = number % 2 == 0
            with host_side(bundles[kind], jailed):
                now = measured(kind, bundles, jailed, 6 * options.seconds + BOOT_S)
            best[jailed] = (max(best[jailed][0], now[0]), max(best[jailed][1], now[1]))
        for way, jail, hand in zip(("sends", "receives"), best[True], best[False], strict=True):
            print(f"{kind:<10} {way:<9} {jail:7.2f} {hand:8.2f}  {jail / hand:.2f}", flush=True)
            found.append({"transport": kind, "guest": way, "jailed": jail, "by_hand": hand, "ratio": jail / hand})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


@contextlib.contextmanager
def host_side(bundle: Path, jailed: bool) -> Iterator[None]:
    """The bundle's `net up`; a tap is for who runs UML, which is root by hand."""
    script = bundle / "net"
    if not script.exists():
        yield
        return
    subprocess.run([script, "up", "--user", "nobody" if jailed else "root"], check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run([script, "down"], check=True, timeout=30)


if __name__ == "__main__":
    main()
