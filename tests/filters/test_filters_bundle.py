"""Built bundles: the filter in them, what the launcher refuses, what a real machine receives; and `umlbuild filter`."""

from __future__ import annotations

import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bundles
import frames
import pytest
from test_filters_packets import obstacle

from umlbuild.bpf import compose, interpreter
from umlbuild.bpf import program as bpf

pytestmark = [pytest.mark.build, pytest.mark.timeout(1200)]

FILTER = "arp or icmp or tcp port 22"
NEWER = {"source": {"kind": "prebuilt", "suite": "trixie"}}
NETWORK = {"address": "10.9.9.2/24", "mac": "02:00:00:00:00:02"}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every user can reach, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="umlbuild-filters-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def built(place: Path, part: str, transport: dict[str, Any], kernel: dict[str, Any] | None = None, **more: Any) -> Path:
    """One name and one lock for all: so they share their image and what was resolved."""
    project = place / part
    project.mkdir()
    lock = place / "bess" / "flt.lock.toml"
    if kernel is None and lock.exists():
        shutil.copy(lock, project)
    network = [{"transport": transport, **NETWORK, **more}]
    return bundles.build(bundles.recipe("flt", kernel or NEWER, "busybox", "ext4", network=network), project)


@pytest.fixture(scope="module")
def bess(place: Path) -> Path:
    return built(place, "bess", {"kind": "bess", "dst": f"{place}/bess.sock"}, filter=FILTER)


def dry(bundle: Path, *before: str, after: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, str(bundle / "run"), "--dry-run", "--ephemeral", "--allow-root", *after],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "UMLBUILD_MEMORY_DIR": "/tmp"},
    )  # fmt: skip


@pytest.fixture
def copy(bess: Path, place: Path) -> Iterator[Path]:
    """A copy of the bundle whose filter is a file of its own."""
    target = Path(tempfile.mkdtemp(dir=place))
    target.chmod(0o755)
    shutil.copytree(bess, target, copy_function=os.link, dirs_exist_ok=True)
    own = target / "filters" / "vec0.bpf"
    data = own.read_bytes()
    own.unlink()
    own.write_bytes(data)
    own.chmod(0o644)
    yield target
    shutil.rmtree(target)


def test_the_bundle_has_the_filter(bess: Path) -> None:
    data = (bess / "filters" / "vec0.bpf").read_bytes()
    program = bpf.unpacked(data)
    assert program[:3] == compose.DROP_OWN and bpf.problems(program) == []
    assert interpreter.passes(program, frames.syn(22)) and not interpreter.passes(program, frames.syn(23))
    manifest = tomllib.loads((bess / "manifest.toml").read_text())
    assert manifest["files"]["filters/vec0.bpf"]["size"] == len(data) == 200
    assert not (bess / "filters" / "egress").exists()


def test_a_good_bundle_is_started_with_it(copy: Path) -> None:
    done = dry(copy)
    assert done.returncode == 0, done.stderr
    assert ",bpffile=filters/vec0.bpf" in done.stdout and "/filters/vec0.bpf\n" in done.stdout


def _replaced(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


FAIL_CLOSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "the filter is not there"),
    "a directory": (_directory, "the filter is not there"),
    "a dangling link": (_dangling, "the filter is not there"),
    "empty": (lambda path: _replaced(path, b""), "is no filter (0 bytes)"),
    "cut within an instruction": (lambda path: _replaced(path, path.read_bytes()[:-3]), "is no filter (197 bytes)"),
    "cut between instructions": (lambda path: _replaced(path, path.read_bytes()[:-8]), "is not the filter that was"),
    "too long": (lambda path: _replaced(path, bytes(4097 * 8)), "is no filter (32776 bytes)"),
    "another": (lambda path: _replaced(path, b"\x07" + path.read_bytes()[1:]), "is not the filter that was built"),
    "another that accepts all": (lambda path: _replaced(path, bpf.packed(compose.ACCEPT_ALL)),
                                 "is not the filter that was built"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAIL_CLOSED)
def test_fail_closed(copy: Path, case: str) -> None:
    damage, sentence = FAIL_CLOSED[case]
    damage(copy / "filters" / "vec0.bpf")
    done = dry(copy)
    assert done.returncode == 125 and sentence in done.stderr and "  fix: " in done.stderr, done.stderr


def test_an_unreadable_filter_is_refused(copy: Path) -> None:
    (copy / "filters" / "vec0.bpf").chmod(0)
    # To root everything is readable: as somebody else, then.
    words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.geteuid() == 0 else ()
    done = dry(copy, *words)
    assert done.returncode == 125 and "the filter cannot be read" in done.stderr, done.stderr


def test_a_host_that_may_refuse_the_filter_is_refused(copy: Path) -> None:
    if obstacle():
        pytest.skip(obstacle())
    script = "[ -e /proc/sys/net/core/optmem_max ] || exit 77; echo 1000 >/proc/sys/net/core/optmem_max && exec \"$@\""
    done = dry(copy, "unshare", "-rn", "sh", "-c", script, "-")
    if done.returncode == 77:
        pytest.skip("net.core.optmem_max is not a namespace's own here (before Linux 6.8)")
    assert done.returncode == 125 and "net.core.optmem_max = 1000" in done.stderr, done.stderr


def test_a_descriptor_must_be_a_socket(bess: Path, place: Path) -> None:
    bundle = built(place, "fd", {"kind": "fd", "fd": 30}, filter="arp")
    for redirection in ("30>&-", "30</dev/null"):
        done = dry(bundle, "bash", "-c", f'exec {redirection}; exec "$@"', "-")
        assert done.returncode == 125 and "descriptor 30 is not a socket" in done.stderr, done.stderr
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        script = f'exec 30<&{one.fileno()}; exec "$@"'
        done = subprocess.run(
            ["bash", "-c", script, "-", str(bundle / "run"), "--dry-run", "--ephemeral", "--allow-root"],
            pass_fds=(one.fileno(),), capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_egress_rules_must_be_in_force(bess: Path, place: Path) -> None:
    bundle = built(place, "tap", {"kind": "tap", "ifname": "tap0"}, egress={"allow": ["arp", "tcp port 443"]})
    names = sorted(path.name for path in (bundle / "filters").iterdir())
    assert names == ["egress", "vec0.egress"]
    if obstacle() or not os.access("/dev/net/tun", os.W_OK):
        pytest.skip(obstacle() or "no /dev/net/tun here")
    script = f"""
        ip tuntap add tap0 mode tap || exit 77
        run() {{ "$1" --dry-run --ephemeral --allow-root >/dev/null; echo "$2 $?"; }}
        run {bundle}/run before
        {bundle}/filters/egress on vec0 tap0 && run {bundle}/run on
        tc filter del dev tap0 ingress pref 2; run {bundle}/run half
        {bundle}/filters/egress on vec0 tap0 && run {bundle}/run again
        tc filter replace dev tap0 ingress pref 1 handle 1 protocol all bpf bytecode '1,6 0 0 1'
        run {bundle}/run other
    """
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", script], capture_output=True, text=True, timeout=100, check=False,
        env={"PATH": os.environ["PATH"], "UMLBUILD_MEMORY_DIR": "/tmp"},
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip(f"no tap here: {done.stderr}")
    assert done.stdout.split("\n")[:-1] == ["before 125", "on 0", "half 125", "again 0", "other 125"], done
    assert "what the guest sends is not filtered there" in done.stderr


# --- a real machine --------------------------------------------------------------------------------------------


class Peer:
    """The other end of a machine's cable, until the machine is ended."""

    def __init__(self, bundle: Path, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen(1)
        self._listener.settimeout(1)
        self.log = bundle.parent / f"{bundle.name}.log"
        with self.log.open("wb") as log:
            self._machine = subprocess.Popen(
                [str(bundle / "run"), "--ephemeral", "--timeout", "120"], stdin=subprocess.PIPE, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self) -> Peer:
        try:
            self._accept()
            self._reach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.terminate()
        try:
            self._machine.wait(30)
        finally:
            self._machine.kill()
            for sock in (self._listener, *([self._cable] if hasattr(self, "_cable") else [])):
                sock.close()
            assert self._machine.stdin is not None
            self._machine.stdin.close()

    def _accept(self) -> None:
        for _ in range(100):
            assert self._machine.poll() is None, self.log.read_text(errors="replace")
            try:
                self._cable, _ = self._listener.accept()
                return
            except TimeoutError:
                continue
        raise AssertionError(self.log.read_text(errors="replace"))

    def _reach(self) -> None:
        """Until the guest's address is set."""
        deadline = time.monotonic() + 100
        while not self.answers(frames.arp("10.9.9.1", "10.9.9.2"), within_s=1.0):
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")

    def answers(self, frame: bytes, *, within_s: float = 1.5) -> list[bytes]:
        """What the guest sends in answer, but for its own questions; [] if nothing comes in time."""
        self._cable.send(frame)
        deadline = time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._cable], [], [], left)[0]:
                got = self._cable.recv(1 << 16)
                if not got:
                    break
                if got[:6] == frames.PEER:
                    return [got]
        return []


def answered(peer: Peer) -> dict[str, bool]:
    """Which frames a guest answers: ARP, echo, a reset for closed ports, "port unreachable" for UDP."""
    asked = {
        "arp": frames.arp("10.9.9.1", "10.9.9.2"),
        "icmp": frames.ethernet(0x0800, frames.ipv4(1, frames.icmp(8))),
        "tcp 22": frames.syn(22),
        "tcp 23": frames.syn(23),
        "udp": frames.ethernet(0x0800, frames.ipv4(17, frames.udp(4000, 4001))),
    }
    return {name: bool(peer.answers(frame)) for name, frame in asked.items()}


LET_THROUGH = {"arp": True, "icmp": True, "tcp 22": True, "tcp 23": False, "udp": False}


@pytest.mark.boot
def test_a_machine_receives_what_the_filter_lets_through(copy: Path, place: Path) -> None:
    with Peer(copy, place / "bess.sock") as peer:
        assert answered(peer) == LET_THROUGH
    run = (copy / "run").read_text()
    (copy / "run").unlink()
    (copy / "run").write_text(run.replace(",bpffile=filters/vec0.bpf", ""))
    (copy / "run").chmod(0o755)
    with Peer(copy, place / "bess.sock") as peer:  # the guest itself would answer all of them
        assert all(answered(peer).values())


@pytest.mark.boot
def test_an_older_kernel_does_so_too(place: Path) -> None:
    path = place / "old.sock"
    bundle = built(place, "old", {"kind": "bess", "dst": str(path)}, bundles.PREBUILT, filter=FILTER)
    with Peer(bundle, path) as peer:
        assert answered(peer) == LET_THROUGH


# --- umlbuild filter -------------------------------------------------------------------------------------------


def verb(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "umlbuild.cli", "filter", *words],
        cwd=place / "bess", capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "UMLBUILD_CACHE": str(bundles.CACHE)},
    )  # fmt: skip


def capture(path: Path, *rows: bytes) -> Path:
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(head + b"".join(struct.pack("=IIII", 1, 2, len(row), len(row)) + row for row in rows))
    return path


def capture_ng(path: Path, *rows: bytes) -> Path:
    """Source: the pcapng draft (section header, interface description, enhanced packets)."""
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack("=I", 12 + len(body))
        return struct.pack("=I", kind) + size + body + size

    data = block(0x0A0D0D0A, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(1, struct.pack("=HHI", 1, 0, 65535))
    for row in rows:
        data += block(6, struct.pack("=IIIII", 0, 0, 1, len(row), len(row)) + row)
    path.write_bytes(data)
    return path


def test_show(bess: Path, place: Path) -> None:
    done = verb(place, "show", "flt.toml")
    assert done.returncode == 0, done.stderr
    first, second, *rows = done.stdout.splitlines()
    assert first == "# vec0 filter: 25 instructions, 200 bytes (in the store)"
    assert second == f"#   {FILTER}" and len(rows) == 25 and rows[0] == "(000) ldh      #type"


@pytest.mark.skipif(shutil.which("tcpdump", path=f"{os.environ['PATH']}:/usr/sbin") is None,
                    reason="tcpdump is not installed")  # fmt: skip
@pytest.mark.parametrize("write", [capture, capture_ng])
def test_a_capture(bess: Path, place: Path, write: Callable[..., Path]) -> None:
    file = write(place / "capture", frames.syn(22), frames.syn(23), frames.arp("10.9.9.1", "10.9.9.2"))
    done = verb(place, "test", "flt.toml", str(file))
    assert done.returncode == 0, done.stderr
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        "1 pass 54 10.9.9.1:40000 > 10.9.9.2:22 tcp", "2 drop 54 10.9.9.1:40000 > 10.9.9.2:23 tcp",
        "3 pass 42 10.9.9.1 > 10.9.9.2 arp who-has", "vec0 filter: 3 packets, 2 pass, 1 drop",
    ]  # fmt: skip


def test_wrong_captures_and_recipes(bess: Path, place: Path) -> None:
    (place / "bess" / "noise").write_bytes(b"noise" * 20)
    for words, sentence in (
        (("flt.toml", "noise"), "noise: "),
        (("flt.toml", "none"), "none: there is no such file"),
        (("flt.toml", "noise", "--egress"), "no interface has egress rules"),
        (("flt.toml", "noise", "--interface", "vec7"), "vec7 has no filter"),
    ):
        done = verb(place, "test", *words)
        assert done.returncode == 2 and sentence in done.stderr, done.stderr
