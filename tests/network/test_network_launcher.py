"""What `run` looks at before it starts a machine with a network, and how it refuses. Nothing is started here."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netkit
import pytest
from netkit import command, ip, namespace, numbered, packet_socket
from test_network_options import L2TP, UDP, V4, recipe

from umlbuild.bpf import compose
from umlbuild.bpf import program as bpf
from umlbuild.plan import cmdline, hostnet
from umlbuild.plan.launch import render
from umlbuild.plan.machine import settings_of
from umlbuild.recipe import Recipe

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can put this process into a network namespace")

SIZE, MTIME = 1 << 20, 1_700_000_123
TAP: dict[str, Any] = {"kind": "tap", "ifname": "umlt0"}


@pytest.fixture
def shelf() -> Iterator[Path]:
    yield from netkit.open_directory()


def bundle(directory: Path, made: Recipe, jail: Path | None = None) -> Path:
    """A directory that the launcher takes for a bundle; its kernel is a program that says that it was started."""
    with (directory / "root.img").open("wb") as file:
        file.truncate(SIZE)
    os.utime(directory / "root.img", (MTIME, MTIME))
    (directory / "linux").write_text("#!/bin/sh\necho started\n")
    told = settings_of(made, cmdline.words_of(made, "demo.toml"))
    changes = {"image_id": "0" * 16, "image_size": SIZE, "image_mtime": MTIME, "interpreter": "", "sums": ""}
    (directory / "run").write_text(render(told.model_copy(update={**changes, "kernel_version": "7.3"})))
    if text := hostnet.script_of(made):
        (directory / "net").write_text(text)
    (directory / "filters").mkdir()
    for name in told.filters:
        (directory / name).write_bytes(bpf.packed(compose.incoming()))
    if jail is not None:
        shutil.copy(jail, directory / "jail")
    for name in ("linux", "run", "net"):
        if (directory / name).exists():
            (directory / name).chmod(0o755)
    return directory


def refusal(directory: Path, *words: str, user: str = "", pass_fds: tuple[int, ...] = ()) -> str:
    """What `run` says when it refuses."""
    argv = [str(directory / "run"), "--ephemeral", "--memory", "16M", *words]
    if user:
        argv = ["setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups", "--inh-caps=-all", *argv]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL, pass_fds=pass_fds,
        env={"PATH": os.environ["PATH"], "HOME": str(directory)},
    )  # fmt: skip
    assert done.returncode == 125 and "started" not in done.stdout and "fix:" in done.stderr, done
    return done.stderr


def test_the_interface_is_missing(shelf: Path) -> None:
    made = bundle(shelf, recipe(TAP))
    with namespace(shelf):
        text = refusal(made)
        assert "umlt0: there is no such interface on this host" in text
        assert f"fix: sudo {made}/net up --user nobody" in text


def test_the_interface_is_somebody_elses(shelf: Path) -> None:
    made = bundle(shelf, recipe(TAP))
    with namespace(shelf):
        ip("tuntap", "add", "dev", "umlt0", "mode", "tap", "user", "root")
        assert "umlt0: belongs to root, not to nobody" in refusal(made)
        ip("tuntap", "del", "dev", "umlt0", "mode", "tap")
        command(str(made / "net"), "up")
        assert "umlt0: belongs to nobody, not to root" in refusal(made, "--allow-root")


def test_tap_devices_cannot_be_opened(shelf: Path) -> None:
    made = bundle(shelf, recipe(TAP))
    with namespace(shelf):
        command(str(made / "net"), "up")
        Path("/dev/net/tun").chmod(0o600)  # the node of this test's own mount
        assert "/dev/net/tun: is missing, or nobody may not use it" in refusal(made)


def test_nobody_listens_at_the_socket(shelf: Path) -> None:
    made = bundle(shelf, recipe({"kind": "bess", "dst": str(shelf / "socket")}))
    assert f"{shelf}/socket: is missing, or nobody may not use it" in refusal(made)


def test_descriptors_are_open(shelf: Path) -> None:
    made = bundle(shelf, recipe({"kind": "fd", "fd": 30}))
    assert "descriptor 30, which the machine's network wants, is not open" in refusal(made)


RAW: dict[str, Any] = {"kind": "raw", "ifname": "uml1"}
PAIR = ("link", "add", "name", "uml1", "type", "veth", "peer", "name", "uml1-host")


def shown(opened: socket.socket | None, directory: Path) -> str:
    """What `run` has against this socket as the one that it needs."""
    if opened is None:
        return refusal(directory)
    with numbered(opened, 200) as end:
        return refusal(directory, pass_fds=(end,))


def test_only_the_right_packet_socket_will_do(shelf: Path, jail: Path) -> None:
    made = bundle(shelf, recipe(RAW, {"host": {"create": False}}), jail)
    good = bpf.packed(compose.incoming())
    with namespace(shelf):
        assert "uml1: there is no such interface on this host" in refusal(made)
        ip(*PAIR)
        for name in ("uml1", "uml1-host"):
            ip("link", "set", name, "up")
        with socket.socket(socket.AF_UNIX) as other, filtered("uml1-host", good) as elsewhere:
            assert "descriptor 200 is no packet socket" in shown(other, made)
            assert "descriptor 200 is not bound to interface uml1" in shown(elsewhere, made)
        with packet_socket("uml1") as bare, filtered("uml1", bpf.packed(compose.ACCEPT_ALL)) as open_to_all:
            assert "descriptor 200 does not have this packet filter" in shown(bare, made)
            assert "descriptor 200 does not have this packet filter" in shown(open_to_all, made)
        with filtered("uml1", good, locked=False) as loose:
            assert "descriptor 200: its packet filter is not locked" in shown(loose, made)
        text = refusal(made, user="nobody")
        assert "a packet socket: Operation not permitted" in text and f"fix: sudo {made}/run --user nobody" in text


def filtered(ifname: str, program: bytes, *, locked: bool = True) -> socket.socket:
    """A packet socket as the helper makes it."""
    made = packet_socket(ifname)
    code = ctypes.create_string_buffer(program)
    made.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", len(program) // 8, ctypes.addressof(code)))
    made.setsockopt(socket.SOL_SOCKET, 44, int(locked))  # SO_LOCK_FILTER
    return made


@pytest.mark.parametrize(
    "transport",
    [
        {"kind": "hybrid", "ifname": "umlt0"}, {"kind": "raw", "ifname": "e", "via": "kernel"},
        {"kind": "gre", **V4}, {**L2TP, **V4},
    ],
)  # fmt: skip
def test_the_capability_is_missing(transport: dict[str, Any], shelf: Path) -> None:
    made = bundle(shelf, recipe(transport))
    with namespace(shelf):
        assert "needs CAP_NET_RAW in this network namespace" in refusal(made, user="nobody")
        text = refusal(made)  # root drops to nobody
        assert "needs CAP_NET_RAW, which the user nobody has not" in text and "--allow-root" in text


@pytest.mark.parametrize(
    ("transport", "wanted"),
    [
        (TAP, {"host_network": True, "capabilities": (), "host_paths": ("/dev/net/tun",)}),
        ({**UDP, **V4}, {"host_network": True, "capabilities": (), "host_paths": ()}),
        ({**L2TP, **V4}, {"host_network": True, "capabilities": ("net_raw",)}),
        ({"kind": "gre", **V4}, {"host_network": True, "capabilities": ("net_raw",)}),
        ({"kind": "hybrid", "ifname": "t"}, {"capabilities": ("net_raw",), "host_paths": ("/dev/net/tun",)}),
        ({"kind": "raw", "ifname": "e"}, {"host_network": False, "capabilities": (), "descriptors": ()}),
        ({"kind": "raw", "ifname": "e", "via": "kernel"}, {"host_network": True, "capabilities": ("net_raw",)}),
        ({"kind": "fd", "fd": 30}, {"host_network": False, "descriptors": (30,), "packet_sockets": ()}),
        ({"kind": "bess", "dst": "/s"}, {"host_network": False, "host_paths": ("/s",)}),
    ],
)  # fmt: skip
def test_what_the_launcher_is_told(transport: dict[str, Any], wanted: dict[str, Any]) -> None:
    made = recipe(transport)
    told = settings_of(made, cmdline.words_of(made, "demo.toml"))
    assert {name: getattr(told, name) for name in wanted} == wanted
    assert [(s.fd, s.ifname) for s in told.packet_sockets] == ([(200, "e")] if transport.get("via", "") == "" and
                                                               transport["kind"] == "raw" else [])  # fmt: skip


def test_the_tests_node_is_a_device(shelf: Path) -> None:
    """Else nothing above would say anything about /dev/net/tun."""
    with namespace(shelf):
        assert stat.S_ISCHR(os.stat("/dev/net/tun").st_mode) and os.stat("/dev/net/tun").st_mode & 0o666 == 0o666
