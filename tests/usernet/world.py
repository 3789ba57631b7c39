"""A world of its own for a test: a network namespace with an "outside", and a name server that the test is.

The test's body runs in a child process there; what fails in it fails the test. With the child the namespace goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.server
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

OUTSIDE, OUTSIDE6 = "192.0.2.1", "2001:db8::1"
RESOLVER = "127.0.0.53"
NAME = "files.test"
NEWNS, NEWNET = 0x00020000, 0x40000000
PAGE = b"this is the outside\n"


def why_not() -> str:
    """Why this machine cannot have such a world; "" if it can."""
    if os.geteuid() != 0:
        return "only root makes a network namespace and a name server in it"
    done = subprocess.run(["unshare", "-nm", "true"], capture_output=True, timeout=30, check=False)
    return "" if done.returncode == 0 else "namespaces are forbidden here"


def inside(body: Callable[..., None], *arguments: Any, timeout_s: float = 240) -> None:
    """Run `body(*arguments)` in a new world. Raises: AssertionError with the traceback of what failed."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_life, args=(theirs, body, arguments))
    child.start()
    theirs.close()
    try:
        told = ours.recv() if ours.poll(timeout_s) else f"took longer than {timeout_s} s"
    except EOFError:
        told = "its process has died"
    finally:
        child.join(10)
        child.kill()
        child.join(10)
    assert told == "", told


def _life(line: Connection, body: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _settle()
        body(*arguments)
        line.send("")
    except BaseException:
        line.send(traceback.format_exc())
    os._exit(0)


def _settle() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(NEWNS | NEWNET) == 0, os.strerror(ctypes.get_errno())
    for command in (
        "mount --make-rprivate /",
        "mount -t tmpfs -o mode=0755 world /mnt",
        "touch /mnt/resolv.conf",
        "mount --bind /mnt/resolv.conf /etc/resolv.conf",
        "ip link set lo up",
        "ip link add out type veth peer name far",
        f"ip addr add {OUTSIDE}/24 dev out",
        f"ip addr add {OUTSIDE6}/64 dev out nodad",
        "ip link set out up",
        "ip link set far up",
        f"ip route add default via {OUTSIDE[:-1]}2",
    ):
        subprocess.run(command.split(), check=True, capture_output=True, timeout=30)
    name_servers(RESOLVER)
    for address in (OUTSIDE, RESOLVER):
        threading.Thread(target=_answer_names, args=(bound(socket.SOCK_DGRAM, address, 53),), daemon=True).start()


def name_servers(*addresses: str) -> None:
    """What this world's /etc/resolv.conf says."""
    Path("/etc/resolv.conf").write_text("".join(f"nameserver {address}\n" for address in addresses))


def bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    line = socket.socket(family, kind)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    line.bind((address, port))
    return line


def _answer_names(line: socket.socket) -> None:
    """Every name has one A record: OUTSIDE for NAME, else none. Source: RFC 1035, 4.1."""
    while True:
        query, sender = line.recvfrom(512)
        at = 12
        labels = []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12 : at + 5]
        is_a = struct.unpack("!H", question[-4:-2])[0] == 1
        found = ".".join(labels) == NAME
        code = 0x8180 if found else 0x8183
        answer = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 60, 4, socket.inet_aton(OUTSIDE)) if found and is_a else b""
        line.sendto(query[:2] + struct.pack("!5H", code, 1, bool(answer), 0, 0) + question + answer, sender)


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


def serve(address: str, port: int) -> None:
    """A web server whose only page is PAGE."""

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    threading.Thread(target=Server((address, port), _Page).serve_forever, daemon=True).start()


def get(where: str) -> str:
    """The guest's command that prints a page. (Debian's static busybox crashes when it looks up a name.)"""
    host, _, port = where.partition(":")
    return (
        f"perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(PeerAddr => \"{host}\", PeerPort => {port or 80}, "
        'Timeout => 5) or exit 1; print $s "GET / HTTP/1.0\\r\\n\\r\\n"; undef $/; $_ = <$s>; '
        "s/^.*?\\r\\n\\r\\n//s; print'"
    )


SERVER = (
    "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalPort => 80, ReuseAddr => 1); "
    'while ($c = $s->accept) { print $c "guest\\n"; close $c }\' >/dev/null 2>&1 </dev/null &'
)
"""The guest's command that says "guest" to whoever connects to port 80."""


def processes_of(directory: Path) -> dict[int, str]:
    """pid → command line of everything that has the directory as its working directory, or in its arguments."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if os.readlink(entry / "cwd") == str(directory) or str(directory) in words:
                found[int(entry.name)] = words
    return found


def all_gone(pids: dict[int, str], within_s: float = 10) -> list[str]:
    """What of these processes is still there after a while."""
    deadline = time.monotonic() + within_s
    while (left := [words for pid, words in pids.items() if _lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def occupied(kind: socket.SocketKind, address: str, port: int) -> Iterator[None]:
    """Somebody else has this port."""
    with socket.socket(socket.AF_INET, kind) as line:
        line.bind((address, port))
        if kind == socket.SOCK_STREAM:
            line.listen()
        yield
