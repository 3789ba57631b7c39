"""What `run` looks at before it starts a machine with a network, and how it refuses. Nothing is started here."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netkit
import pytest
from netkit import command, ip, namespace
from test_network_options import L2TP, UDP, V4, recipe

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


def bundle(directory: Path, made: Recipe) -> Path:
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


def test_packet_sockets_are_open(shelf: Path) -> None:
    made = bundle(shelf, recipe({"kind": "raw", "ifname": "eth1"}))
    assert "descriptor 200, which the machine's network wants, is not open" in refusal(made)


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


@pytest.mark.parametrize("content", [None, b"", b"1234567", bytes(8 * 4097)], ids=["missing", "empty", "odd", "large"])
def test_a_filter_that_uml_would_do_without(content: bytes | None, shelf: Path) -> None:
    file = shelf / "filter.bpf"
    if content is not None:
        file.write_bytes(content)
    transport = {"kind": "raw", "ifname": "lo", "via": "kernel", "bpffile": str(file)}
    made = bundle(shelf, recipe(transport))
    with namespace(shelf):
        assert f"{file}: is no filter program" in refusal(made, "--allow-root")


@pytest.mark.parametrize(
    ("transport", "wanted"),
    [
        (TAP, {"host_network": True, "capabilities": (), "host_paths": ("/dev/net/tun",)}),
        ({**UDP, **V4}, {"host_network": True, "capabilities": (), "host_paths": ()}),
        ({**L2TP, **V4}, {"host_network": True, "capabilities": ("net_raw",)}),
        ({"kind": "gre", **V4}, {"host_network": True, "capabilities": ("net_raw",)}),
        ({"kind": "hybrid", "ifname": "t", "bpffile": "/f"},
         {"capabilities": ("net_raw",), "filter_files": ("/f",), "host_paths": ("/dev/net/tun",)}),
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
