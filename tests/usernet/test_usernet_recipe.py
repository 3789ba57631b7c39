"""What a recipe may say of `transport = "user"`, and what follows from it."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from umlbuild.errors import RecipeError
from umlbuild.host import rootless
from umlbuild.kinds.sandboxes import seccomp
from umlbuild.kinds.transports.forward import Forward, clash_of, parts_of
from umlbuild.kinds.transports.user import User
from umlbuild.plan.cmdline import words_of
from umlbuild.plan.launch import render
from umlbuild.plan.machine import launcher_of
from umlbuild.recipe import Recipe
from umlbuild.recipe.load import parse
from umlbuild.specs.launch import LaunchSettings, Uplink

ADAPTER: TypeAdapter[str] = TypeAdapter(Forward)


@pytest.mark.parametrize(("text", "parts"), [
    ("2222->22", ("tcp", "127.0.0.1", 2222, 22)),
    ("127.0.0.1:8080->80", ("tcp", "127.0.0.1", 8080, 80)),
    ("udp:127.0.0.1:5353->53", ("udp", "127.0.0.1", 5353, 53)),
    ("udp:5353 -> 53", ("udp", "127.0.0.1", 5353, 53)),
    ("0.0.0.0:1->65535", ("tcp", "0.0.0.0", 1, 65535)),
])  # fmt: skip
def test_forwards(text: str, parts: tuple[str, str, int, int]) -> None:
    assert parts_of(text) == parts
    assert parts_of(ADAPTER.validate_python(text)) == parts


@pytest.mark.parametrize(("text", "sentence"), [
    ("80", "is not a port forward"), ("", "is not a port forward"), ("8080->", "is not a port forward"),
    ("8080:80", "is not a port forward"), ("::1:80->80", "is not a port forward"),
    ("sctp:80->80", "'sctp' is neither tcp nor udp"),
    ("localhost:8080->80", "'localhost' is neither tcp nor udp, nor a numeric address"),
    ("1.2.3:8080->80", "'1.2.3' is not a numeric"),
    (":8080->80", "'' is not a numeric"), ("0->80", "a port is 1 to 65535, not 0"),
    ("8080->65536", "a port is 1 to 65535, not 65536"), ("127.0.0.1:8080->80\n", "is not a port forward"),
])  # fmt: skip
def test_forwards_that_cannot_be(text: str, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence.replace("(", "\\(")):
        ADAPTER.validate_python(text)


@given(st.text(max_size=40))
def test_any_text_is_a_forward_or_an_error(text: str) -> None:
    try:
        protocol, address, port, guest = parts_of(text)
    except ValueError:
        return
    whole = ADAPTER.validate_python(text)
    assert whole == f"{protocol}:{address}:{port}->{guest}" == ADAPTER.validate_python(whole)
    assert whole.isascii() and " " not in whole


@pytest.mark.parametrize(("one", "other", "clash"), [
    ("80->1", "80->2", True), ("80->1", "81->1", False), ("80->1", "udp:80->1", False),
    ("0.0.0.0:80->1", "80->1", True), ("127.0.0.2:80->1", "80->1", False),
])  # fmt: skip
def test_two_forwards(one: str, other: str, clash: bool) -> None:
    assert clash_of(one, other) is clash
    try:
        User(forward=(one, other))
    except ValidationError as error:
        assert clash and "want the same port of the host" in str(error)
    else:
        assert not clash


def recipe(*networks: dict[str, Any]) -> Recipe:
    return parse({
        "format": 1, "name": "demo", "kernel": {"source": "prebuilt"}, "rootfs": {"init": "busybox"},
        "image": {"kind": "ext4"}, "network": list(networks),
    }, "demo.toml")  # fmt: skip


@pytest.mark.parametrize(("networks", "sentence"), [
    ([{"transport": "user"}, {"transport": "user"}], 'network[1].transport: network[0] is "user" already'),
    ([{"transport": "user", "address": "192.168.1.2/24"}], "network[0].address: 192.168.1.2/24: with transport"),
    ([{"transport": "user", "address": "10.0.2.3/24"}], "10.0.2.2 and 10.0.2.3 are taken"),
    ([{"transport": "user", "address": "10.0.2.9/24", "gateway": "10.0.2.1"}], "network[0].gateway: is 10.0.2.2"),
    ([{"transport": "user", "address6": "auto"}], "network[0].address6: nobody answers there; say transport.ipv6"),
    ([{"transport": "user", "mtu": 65534}], "network[0].mtu: slirp4netns takes 65521 at most"),
    ([{"transport": {"kind": "user", "forward": ["x"]}}], "network[0].transport.forward[0]: 'x' is not a port forward"),
    ([{"transport": {"kind": "user", "forwards": []}}], 'did you mean "forward"?'),
])  # fmt: skip
def test_recipes_that_cannot_be(networks: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(*networks)
    assert sentence in str(error.value)


def settings_in(text: str) -> dict[str, str]:
    """The launcher's settings, as its shell reads them."""
    names = ("UPLINK", "UPLINK_FORWARDS", "UPLINK_OPTIONS", "UPLINK_LOOPBACK", "UPLINK_VECTOR")
    head = text.partition("help() {")[0]
    show = "".join(f'printf "%s\\n" "${{{name}-}}"\n' for name in names)
    done = subprocess.run(["sh", "-c", f"{head}\n{show}"], capture_output=True, text=True, check=True, timeout=10)
    return dict(zip(names, done.stdout.split("\n"), strict=False))


@pytest.mark.parametrize(("network", "forwards", "options", "loopback"), [
    ({"transport": "user"}, "", "--mtu=9000 --disable-host-loopback", "shut"),
    ({"transport": {"kind": "user", "forward": ["2222->22"]}, "mtu": 1400, "address": "10.0.2.9/24"},
     "tcp:127.0.0.1:2222:10.0.2.9:22", "--mtu=1400 --disable-host-loopback", "shut"),
    ({"transport": {"kind": "user", "forward": ["2222->22", "udp:5353->53"], "ipv6": True}},
     "tcp:127.0.0.1:2222:10.0.2.15:22 udp:127.0.0.1:5353:10.0.2.15:53", "--mtu=9000 --enable-ipv6", "replies"),
    ({"transport": {"kind": "user", "host_loopback": True}}, "", "--mtu=9000", "open"),
])  # fmt: skip
def test_what_the_launcher_is_told(network: dict[str, Any], forwards: str, options: str, loopback: str) -> None:
    made = recipe({"transport": {"kind": "fd", "fd": 29}}, network)
    words = words_of(made, "demo.toml")
    assert not [word for word in words if word.startswith("vec1")]
    told = settings_in(launcher_of(made, words))
    assert (told["UPLINK"], told["UPLINK_FORWARDS"], told["UPLINK_OPTIONS"]) == ("1", forwards, options)
    assert told["UPLINK_LOOPBACK"] == loopback
    assert told["UPLINK_VECTOR"].endswith(f",depth=128,mtu={network.get('mtu', 9000)},gro=1")


def test_without_it_nothing_is_told() -> None:
    made = recipe({"transport": {"kind": "fd", "fd": 29}})
    text = launcher_of(made, words_of(made, "demo.toml"))
    assert settings_in(text)["UPLINK"] == "" and "add_hostfwd" not in text


def test_uml_may_connect_to_unix_sockets_only() -> None:
    """Source: seccomp.py: one instruction `jeq` (0x15) per allowed call, or address family."""

    def values(**options: Any) -> Counter[int]:
        code = seccomp.program(share=False, **options)
        rows = [code[at : at + 8] for at in range(0, len(code), 8)]
        return Counter(int.from_bytes(row[4:], "little") for row in rows if row[0] == 0x15)

    none, unix, network = (values(sockets=sockets) for sockets in ("none", "unix", "network"))
    assert unix - none == Counter((42, 51, 55))  # connect, getsockname, getsockopt
    assert network - unix == Counter((seccomp.AF_INET, seccomp.AF_INET6, seccomp.AF_NETLINK, seccomp.AF_PACKET))


UPLINK = Uplink(unit=0, vector="mac=02:00:00:00:00:01,depth=128", mtu=9000,
                forwards=("tcp:127.0.0.1:8080:10.0.2.15:80", "udp:127.0.0.1:81:10.0.2.15:8080"))  # fmt: skip
SIZE = 1 << 20


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """A launcher whose machine is never started."""
    directory = tmp_path / "b"
    directory.mkdir()
    (directory / "root.img").write_bytes(bytes(SIZE))
    (directory / "linux").write_text("#!/bin/sh\n")
    (directory / "linux").chmod(0o755)
    run = directory / "run"
    run.write_text(render(LaunchSettings(
        name="demo", image_id="0123456789ab", image_mtime=1, image_size=SIZE, kernel_version="7.3.4",
        cmdline=("root=/dev/ubda", "rw"), uplink=UPLINK,
    )))  # fmt: skip
    run.chmod(0o755)
    return run


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH with all programs of this host but slirp4netns and perl, which a test adds as it likes."""
    place = tmp_path / "bin"
    place.mkdir()
    for directory in os.environ["PATH"].split(":"):
        for program in Path(directory).glob("*"):
            link = place / program.name
            if program.name not in ("slirp4netns", "perl") and not link.is_symlink():
                link.symlink_to(program)
    return place


def dry_run(
    launcher: Path, path: Path, *options: str, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(path), "HOME": "/nonexistent", "UMLBUILD_ALLOW_ROOT": "1", "UMLBUILD_MEMORY_DIR": "/tmp"}
    return subprocess.run([*before, launcher, "--dry-run", "--ephemeral", *options], env=env, capture_output=True,
                          text=True, timeout=30, check=False)  # fmt: skip


def put(path: Path, name: str, text: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{text}\n")
    (path / name).chmod(0o755)


def test_what_is_missing_is_named(launcher: Path, programs: Path) -> None:
    def refused(sentence: str, fix: str, *options: str) -> None:
        done = dry_run(launcher, programs, *options)
        assert done.returncode == 125 and sentence in done.stderr and fix in done.stderr, done.stderr

    refused("slirp4netns is not installed", "apt-get install slirp4netns")
    put(programs, "slirp4netns", "echo '--target-type=TYPE ([netns])'")
    refused("perl is not installed", "apt-get install perl-base")
    put(programs, "perl", "exit 1")
    refused("jail: is not there", "copy the bundle whole")
    put(launcher.parent, "jail", "exit 1")
    refused("is too old for UML", "1.2.0 or newer")
    put(programs, "slirp4netns", "echo '--target-type=TYPE ([netns|bess])'")
    if rootless.obstacle() is None:  # a new network namespace has its own limit, the usual one
        new = ("unshare", "-n") if os.geteuid() == 0 else ("unshare", "-rn")
        done = dry_run(launcher, programs, before=new)
        assert done.returncode == 125 and "--port 81=8081" in done.stderr
        assert "the port 127.0.0.1:81 cannot be forwarded: ports below 1024 need a privilege" in done.stderr
    refused("this machine forwards no port 82", "see transport.forward", "--port", "82=8082")
    refused("--port 81: not two ports", "--port 8080=8081", "--port", "81")
    refused("--port 81=: not two ports", "--port 8080=8081", "--port", "81=")
    refused("--port 81=70000: not two ports", "--port 8080=8081", "--port", "81=70000")
    done = dry_run(launcher, programs, "--port", "81=8081", "--port=8080=18080")
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert "vec0:transport=bess,dst=/tmp/uml-XXXXXXXX/net/uml,mac=02:00:00:00:00:01,depth=128" in words
    assert words[words.index("/tmp/uml-XXXXXXXX/net/uml") - 1] == "--ro-bind"


def test_port_without_a_network(tmp_path: Path, launcher: Path, programs: Path) -> None:
    launcher.write_text(render(LaunchSettings(
        name="demo", image_id="0123456789ab", image_mtime=1, image_size=SIZE, kernel_version="7.3.4", cmdline=("rw",),
    )))  # fmt: skip
    done = dry_run(launcher, programs, "--port", "1=2")
    assert done.returncode == 125 and 'this machine has no network with transport = "user"' in done.stderr
