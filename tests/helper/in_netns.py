"""Run in a network namespace of its own: the helper's packet socket between two ends of a veth pair. Prints JSON.

python in_netns.py JAIL DIRECTORY; as python in_netns.py --child it is the command that the helper becomes.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

FD = 17
OURS, OTHERS = 0x88B5, 0x88B6
"""EtherTypes for experiments."""
ETH_P_ALL, SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_LOCK_FILTER = 3, 26, 27, 44


def rows(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *row) for row in instructions)


ONLY_OURS = rows((0x28, 0, 0, 12), (0x15, 0, 1, OURS), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0))


def frame(kind: int, text: bytes) -> bytes:
    """To an address that no interface here has."""
    return bytes.fromhex("020000000099" "020000000001") + struct.pack(">H", kind) + text.ljust(60, b".")


def received(end: socket.socket, timeout_s: float = 0.3) -> list[str]:
    end.settimeout(timeout_s)
    found = []
    try:
        while True:
            data = end.recv(65536)
            if data[12:14] in (struct.pack(">H", OURS), struct.pack(">H", OTHERS)):
                found.append(data[14:].rstrip(b".").decode())
    except TimeoutError:
        return found


def raw(name: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.bind((name, ETH_P_ALL))
    return end


def error_of(end: socket.socket, option: int, value: bytes) -> int:
    try:
        end.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError as problem:
        return problem.errno or -1
    return 0


def child() -> None:
    end = socket.socket(fileno=FD)
    with raw("peer") as peer, raw("other-peer") as other:
        for sender in (peer, other):
            sender.send(frame(OURS, b"ours"))
            sender.send(frame(OTHERS, b"others"))
        facts: dict[str, object] = {"heard": received(end)}
        end.send(frame(OTHERS, b"back"))
        facts["peer heard"] = received(peer)
    import ctypes  # the address of a program is what these options take

    everything = ctypes.create_string_buffer(rows((0x06, 0, 0, 0x40000)))
    replacement = struct.pack("=HxxxxxxQ", 1, ctypes.addressof(everything))
    facts["replace"] = error_of(end, SO_ATTACH_FILTER, replacement)
    facts["take away"] = error_of(end, SO_DETACH_FILTER, struct.pack("=i", 0))
    facts["unlock"] = error_of(end, SO_LOCK_FILTER, struct.pack("=i", 0))
    facts["room"] = [end.getsockopt(socket.SOL_SOCKET, o) for o in (socket.SO_RCVBUF, socket.SO_SNDBUF)]
    facts["protocol"] = end.getsockname()[1]
    facts["stray"] = [fd for fd in range(3, 64) if fd != FD and _is_socket(fd)]
    facts["promiscuity"] = "promiscuity 1" in subprocess.run(
        ["ip", "-d", "link", "show", "dev", "end"], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    print(json.dumps(facts))


def _is_socket(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False


def main(jail: str, where: Path) -> None:
    for words in ("link add end type veth peer name peer", "link add other type veth peer name other-peer",
                  *(f"link set {name} up" for name in ("end", "peer", "other", "other-peer", "lo"))):  # fmt: skip
        subprocess.run(["ip", *words.split()], check=True, timeout=10)
    path = where / "filter"

    def run(*words: str, content: bytes = ONLY_OURS, name: str = "end") -> dict[str, object]:
        path.write_bytes(content)
        argv = [jail, "packet", name, "--filter", str(path), "--fd", str(FD), *words]
        done = subprocess.run(
            [*argv, "--", sys.executable, __file__, "--child"], capture_output=True, text=True, timeout=30, check=False
        )
        return {"status": done.returncode, "said": done.stderr, "facts": json.loads(done.stdout or "null")}

    facts = {
        "plain": run(),
        "buffer": run("--buffer", "3000000"),
        "no such interface": run(name="absent"),
        "no return": run(content=rows((0x28, 0, 0, 12))),
        "jumps out": run(content=rows((0x15, 9, 9, 0), (0x06, 0, 0, 0))),
        "bad code": run(content=b"\xff" * 8),
        "big endian": run(content=b"".join(struct.pack(">HBBI", *row) for row in [(0x06, 0, 0, 0)])),
        "descriptor too high": run("--fd", "60000") | {"two": True},
    }
    done = subprocess.run(
        [jail, "packet", "end", "--filter", str(path), "--fd", "60000", "--", "/bin/echo", "started"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    facts["out of range"] = {"status": done.returncode, "said": done.stderr, "facts": done.stdout or None}
    print(json.dumps(facts))


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child()
    else:
        main(sys.argv[1], Path(sys.argv[2]))
