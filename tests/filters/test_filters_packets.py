"""Real packets in a network namespace of the test's own: what the kernel does behind a packet socket and at tc."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from umlbuild.bpf import compose
from umlbuild.bpf import program as bpf
from umlbuild.host import pcap

NETNS = Path(__file__).with_name("netns.py")
EGRESS = Path(__file__).parents[2] / "umlbuild" / "launcher" / "egress.sh"
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""A plain user's has no sbin."""
_LOADS = {*bpf.LOADS, bpf.LDX_MSH}


@functools.cache
def obstacle() -> str:
    """Why there are no packets here, or ""."""
    for program in ("tcpdump", "tc", "ip", "unshare"):
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed"
    tried = subprocess.run(
        ["unshare", "-rn", "ip", "link", "add", "name", "v0", "type", "veth", "peer", "name", "v1"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return f"no veth in a namespace here: {tried.stderr.strip()}" if tried.returncode else ""


def task(*words: str) -> Any:
    if why := obstacle():
        pytest.skip(why)
    done = subprocess.run(
        ["unshare", "-rn", "timeout", "60", sys.executable, str(NETNS), *words],
        capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "PATH": PATH, "PYTHONPATH": str(NETNS.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_packet_socket_lets_through_what_the_interpreter_does_and_never_own_frames() -> None:
    answer = task("kept")
    assert answer["wrong"] == []
    assert answer["compared"] > 800


def test_tags_are_gone_before_a_filter_sees_the_frame() -> None:
    """Why `vlan` is no word of our expressions, and what docs/filters.md says of tagged frames."""
    answer = task("tags")
    assert answer["all"] == answer["port"] == [answer["inside"]] and answer["ours"]
    assert answer["vlan"] == []


def test_egress_rules_drop_what_they_do_not_allow(tmp_path: Path) -> None:
    script = tmp_path / "egress"
    shutil.copy(EGRESS, script)
    script.chmod(0o755)
    if obstacle():
        pytest.skip(obstacle())
    (tmp_path / "vec0.egress").write_text(f"{compose.bytecode(pcap.compiled('arp or tcp port 443'))}\n")
    answer = task("egress", str(script))
    assert 5 < answer.pop("expected") < answer.pop("sent") - 20
    assert answer == {
        "before": True, "on": ["", ""], "with": True, "show": 0, "off": 0, "after": True, "show after": 1,
        "beside another": 1, "no device": 1,
    }  # fmt: skip


def test_the_launchers_estimate_of_the_kernels_charge_is_never_too_small() -> None:
    rows = task("limit")
    if not rows:
        pytest.skip("net.core.optmem_max is not a namespace's own here (before Linux 6.8)")
    for name, program, least in rows:
        loads = sum(row[0] in _LOADS for row in program)
        estimate = 8 * (11 * loads + 3 * len(program)) + 256
        assert least <= estimate < 8 * least, (name, least, estimate)
