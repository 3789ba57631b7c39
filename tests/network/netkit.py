"""Network namespaces of the tests' own, machines in them, and what they have for talking to each other."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bundles

from umlbuild.runtime.machine import Machine

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET, _CLONE_NEWNS = 0x40000000, 0x20000
_ETH_P_ALL = 3


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def open_directory() -> Iterator[Path]:
    """A directory that everybody can read, which pytest's are not; for fixtures."""
    with tempfile.TemporaryDirectory(prefix="network-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextlib.contextmanager
def namespace(directory: Path) -> Iterator[None]:
    """This thread, and what it starts, in namespaces that are gone with them: a network where only lo is there, and up;
    mounts where everybody may open /dev/net/tun, as udev has it on a host."""
    place = os.getcwd()
    with contextlib.ExitStack() as stack:
        for kind, flag in (("net", _CLONE_NEWNET), ("mnt", _CLONE_NEWNS)):
            before = os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY)
            stack.callback(os.close, before)
            _check(_LIBC.unshare(flag))
            stack.callback(_back, before, flag, place)
        node = directory / "tun"
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
        node.chmod(0o666)
        stack.callback(node.unlink)
        command("mount", "--make-rprivate", "/")
        command("mount", "--bind", str(node), "/dev/net/tun")
        ip("link", "set", "lo", "up")
        yield


@contextlib.contextmanager
def entered(network: Path) -> Iterator[None]:
    """This thread in another network namespace; a socket stays in the one where it was made."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(network, os.O_RDONLY)
    try:
        _check(_LIBC.setns(there, _CLONE_NEWNET))
        yield
    finally:
        _check(_LIBC.setns(here, _CLONE_NEWNET))
        os.close(there)
        os.close(here)


def _back(descriptor: int, flag: int, place: str) -> None:
    _check(_LIBC.setns(descriptor, flag))
    os.chdir(place)


def ip(*words: str) -> str:
    """What `ip` says."""
    return command("ip", *words)


def command(*words: str) -> str:
    """What a program says. It must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def packet_socket(ifname: str) -> socket.socket:
    """A packet socket on an interface."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.bind((ifname, _ETH_P_ALL))
    return made


@contextlib.contextmanager
def numbered(given: socket.socket, number: int) -> Iterator[int]:
    """Another descriptor of a socket, with this number, while inside; what has that number now has it again after."""
    before: int | None = None
    with contextlib.suppress(OSError):  # nothing has it
        before = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100)
    os.dup2(given.fileno(), number)
    os.set_inheritable(number, True)  # also if it is that very one
    try:
        yield number
    finally:
        os.close(number)
        if before is not None:
            os.dup2(before, number, inheritable=False)
            os.close(before)


class Hub:
    """A SOCK_SEQPACKET socket that copies each frame to all others who are connected."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen(8)
        self._wake, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        ports: list[socket.socket] = []
        with selectors.DefaultSelector() as selector, self._listener, self._wake:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._wake:
                        for port in ports:
                            port.close()
                        return
                    if key.fileobj is self._listener:
                        port = self._listener.accept()[0]
                        port.setblocking(False)
                        selector.register(port, selectors.EVENT_READ)
                        ports.append(port)
                        continue
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    try:
                        frame = source.recv(1 << 17)
                    except OSError:
                        frame = b""
                    if not frame:
                        selector.unregister(source)
                        ports.remove(source)
                        source.close()
                    for other in ports:
                        with contextlib.suppress(OSError):  # full, or gone: a frame is lost, as on a wire
                            if other is not source:
                                other.send(frame)


def recipe(name: str, kernel: dict[str, Any], networks: Sequence[dict[str, Any]], *, bare: bool) -> dict[str, Any]:
    """A machine with busybox as its init and these interfaces."""
    prebuilt = kernel["source"] == "prebuilt"
    rootfs: dict[str, Any] = {"bootstrap": "extract"} if bare else {}
    image = "erofs" if bare and not prebuilt else "ext4"
    launch = {"memory": "128M"}
    return bundles.recipe(name, kernel, "busybox", image, rootfs=rootfs, network=list(networks), launch=launch)


def started(bundle: Path, *, root: bool, descriptors: Sequence[int] = (), options: Sequence[str] = ()) -> Machine:
    """A machine that is up; by root it runs as nobody, unless `root`."""
    machine = Machine.start(
        bundle, ephemeral=True, allow_root=root, timeout_s=240, descriptors=descriptors, options=options
    )
    try:
        machine.wait_up(90)
    except BaseException:
        sys.stderr.write("\n".join(machine.console.lines()))
        machine.close()
        raise
    return machine


def run(machine: Machine, text: str) -> str:
    """What a command in the guest says. It must succeed."""
    result = machine.exec(text, timeout_s=60)
    said = (result.status, result.stdout.decode(), result.stderr.decode(), machine.console.lines()[-15:])
    assert result.ok, (text, *said)
    return result.stdout.decode()


def eventually(machine: Machine, text: str, wanted: str) -> None:
    """Wait until a command in the guest says something; inits go on after the agent is up."""
    deadline = time.monotonic() + 30
    while wanted not in (said := machine.exec(text, timeout_s=30).stdout.decode()):
        assert time.monotonic() < deadline, (text, wanted, said, machine.console.lines()[-20:])
        time.sleep(0.2)
