"""The packet socket, in a network namespace of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helperkit import ALLOW, FAILED, refused, run

INSIDE = Path(__file__).with_name("in_netns.py")
NAMESPACE = ("unshare", "--user", "--map-root-user", "--net", "--")
EPERM = 1


@pytest.fixture(scope="module")
def facts(jail: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    where = tmp_path_factory.mktemp("packet")
    argv = [*NAMESPACE, sys.executable, str(INSIDE), str(jail), str(where)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip(f"no network namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_only_what_the_filter_lets_in_is_heard(facts: dict[str, Any]) -> None:
    """To another address (so the interface is promiscuous), of one interface only, and not its own frames."""
    assert facts["plain"]["status"] == 0 and facts["plain"]["said"] == ""
    inside = facts["plain"]["facts"]
    assert inside["heard"] == ["ours"] and inside["peer heard"] == ["back"]
    assert inside["promiscuity"] is True


def test_nobody_can_take_the_filter_away(facts: dict[str, Any]) -> None:
    inside = facts["plain"]["facts"]
    assert (inside["replace"], inside["take away"], inside["unlock"]) == (EPERM, EPERM, EPERM)
    assert inside["stray"] == []


def test_buffers(facts: dict[str, Any]) -> None:
    usual, large = facts["plain"]["facts"]["room"], facts["buffer"]["facts"]["room"]
    assert [new > old for new, old in zip(large, usual, strict=True)] == [True, True] or large == usual


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no such interface", "interface absent: No such device"),
        ("no return", "does not take the packet filter"),
        ("jumps out", "does not take the packet filter"),
        ("bad code", "does not take the packet filter"),
        ("big endian", "does not take the packet filter"),
        ("descriptor too high", "given twice"),
        ("out of range", "--fd 60000: Bad file descriptor"),
    ],
)
def test_it_fails_closed(facts: dict[str, Any], name: str, said: str) -> None:
    case = facts[name]
    assert case["status"] == FAILED and case["facts"] is None
    assert said in case["said"] and case["said"].count("\n") == 1


def test_without_the_right_to(jail: Path, tmp_path: Path) -> None:
    (tmp_path / "filter").write_bytes(ALLOW)
    tmp_path.chmod(0o755)
    words = ("packet", "lo", "--filter", str(tmp_path / "filter"), "--fd", "7", "--", "/bin/echo", "started")
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--")
    argv = ["unshare", "--user", "--map-user=12345", "--", *drop, str(jail), *words]
    refused(run(*argv), "Operation not permitted", "CAP_NET_RAW")
