"""The errors of the UML HOWTO that an implementer would copy: none of them is in what we generate.

Source: uml-facts 8. Those about files of the kernel's build are tested in tests/kernel, those about the
launcher's arguments in tests/launcher.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_plan_keys import plan

from umlbuild.plan import cmdline, guest, guestnet

NETWORK = [
    {"transport": {"kind": "tap", "ifname": "tap0"}, "address": "192.168.4.2/30", "gateway": "192.168.4.1"},
    {"transport": {"kind": "bess", "dst": "/run/net.sock"}, "address": "dhcp"},
]
CHANGE: dict[str, Any] = {
    "network": NETWORK,
    "disk": [{"size": "64M", "mount": "/srv"}],
}


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    return cmdline.words_of(plan(tmp_path, CHANGE).recipe, "demo.toml")


@pytest.fixture
def fstab(tmp_path: Path) -> list[list[str]]:
    text = guest.fstab_of(plan(tmp_path, CHANGE).recipe)
    return [line.split("\t") for line in text.splitlines() if not line.startswith("#")]


def test_fstab_lines_have_six_fields_and_a_mount_point(fstab: list[list[str]]) -> None:
    assert fstab[0] == ["/dev/ubda", "/", "ext4", "discard,errors=remount-ro", "0", "1"]
    assert all(len(row) == 6 and row[1].startswith("/") for row in fstab)


def test_fstab_names_devices_that_exist(fstab: list[list[str]]) -> None:
    assert [row[0] for row in fstab] == ["/dev/ubda", "/dev/ubdb"]


def test_the_root_is_ubda_not_ubd0(words: tuple[str, ...]) -> None:
    assert "root=/dev/ubda" in words
    assert not any("/dev/ubd0" in word or "/dev/ubd/" in word for word in words)


def test_the_root_is_writable(words: tuple[str, ...]) -> None:
    assert "rw" in words


def test_no_quotes_on_the_command_line(words: tuple[str, ...]) -> None:
    assert not any(c in word for word in words for c in "\"' ")


def test_macs_have_six_bytes(words: tuple[str, ...]) -> None:
    macs = re.findall(r"mac=([0-9a-f:]+)", " ".join(words))
    assert len(macs) == 2 and all(re.fullmatch(r"02(:[0-9a-f]{2}){5}", mac) for mac in macs)
    assert macs[0] != macs[1]


def test_no_legacy_network_and_no_underscored_ports(words: tuple[str, ...]) -> None:
    assert not any(re.match(r"eth\d+=", word) or "src_port" in word or "dst_port" in word for word in words)


def test_options_that_run_host_programs_or_replace_filters_are_never_there(words: tuple[str, ...]) -> None:
    assert not any(word in " ".join(words) for word in ("ifup=", "bpfflash", "xterm", "port:", "hostfs="))


def test_netmasks_of_both_sides_are_the_recipes(tmp_path: Path) -> None:
    text = guestnet.interfaces_of(plan(tmp_path, CHANGE).recipe)
    assert "address 192.168.4.2\n    netmask 255.255.255.252\n    gateway 192.168.4.1" in text


def test_sizes_are_exact(tmp_path: Path) -> None:
    spec: Any = plan(tmp_path, {"image": {"size": "16G"}}).parts["image"].inputs["image"].spec
    assert spec.size == 16 << 30  # dd's count=1 seek=16G makes one byte more


def test_the_launcher_gives_memory_and_directory_and_marks_raw_disks(tmp_path: Path) -> None:
    spec: Any = plan(tmp_path, CHANGE).bundle.spec
    for wanted in ("mem=", "uml_dir=", "con=null", "ssl=null"):
        assert wanted in spec.launcher
    assert "1:disk0.img:copy:@DISK0_ID@:sd" in spec.launcher
    assert "con1=/dev" not in spec.launcher
