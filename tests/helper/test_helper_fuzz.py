"""Anything as arguments and filters: the helper ends in time, with a line of its own, and no sanitizer complains."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from pathlib import Path

import pytest
from helperkit import FAILED, TOO_OLD
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umlbuild.attack.program import Program

NAMESPACE = ("unshare", "--user", "--map-root-user", "--net", "--")
"""Packet sockets are those of an empty network."""
SLOW_S = 10
ENVIRONMENT = {"PATH": os.environ["PATH"], "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}

_OPTIONS = ("--rx", "--ro", "--rw", "--rwx", "--dev", "--filter", "--hold", "--fd", "--buffer", "--", "-", "")
_NAMES = ("landlock", "packet", "check", "lo", "absent", "DIR", "FILTER", "PROGRAM", "/dev/null", "/proc", "7", "63")
_ANY = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
_NUMBERS = st.integers(-(1 << 65), 1 << 65).map(str)
_WORDS = st.lists(
    st.one_of(st.sampled_from(_OPTIONS), st.sampled_from(_NAMES), _NUMBERS, _ANY), max_size=12
)
_SENSIBLE = st.lists(
    st.tuples(st.sampled_from(_OPTIONS[:9]), st.one_of(st.sampled_from(_NAMES[3:]), _NUMBERS)), max_size=5
).map(lambda pairs: [word for pair in pairs for word in pair])
_INSTRUCTION = st.builds(
    lambda *row: struct.pack("=HBBI", *row), st.sampled_from([0x06, 0x15, 0x20, 0x28, 0x30, 0x54, 0x05, 0xFFFF]),
    st.integers(0, 255), st.integers(0, 255), st.one_of(st.integers(0, 64), st.integers(0, (1 << 32) - 1)),
)  # fmt: skip
_FILTERS = st.one_of(
    st.lists(_INSTRUCTION, max_size=8).map(b"".join), st.binary(max_size=64),
    st.integers(4090, 4100).map(lambda count: struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000) * count),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a static program that ends at once."""
    where = tmp_path_factory.mktemp("fuzz")
    (where / "program").write_bytes(Program(bytes(16)).elf())
    (where / "program").chmod(0o755)
    return where


def check(jail: Path, place: Path, words: list[str], content: bytes) -> int:
    """Run it; returns its exit status."""
    (place / "filter").write_bytes(content)
    names = {"DIR": str(place), "FILTER": str(place / "filter"), "PROGRAM": str(place / "program")}
    argv = [*NAMESPACE, str(jail), *(names.get(word, word) for word in words)]
    began = time.monotonic()
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False, env=ENVIRONMENT, cwd=place,
        errors="replace", text=True,
    )  # fmt: skip
    took = time.monotonic() - began
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    assert took < SLOW_S, (took, argv)
    if done.returncode in (FAILED, TOO_OLD):
        assert done.stderr.startswith("jail: ") and done.stderr.count("\n") == 1, done
    return done.returncode


RULES = settings(
    max_examples=120, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@RULES
@given(words=_WORDS, content=_FILTERS)
def test_any_words(checked_jail: Path, place: Path, words: list[str], content: bytes) -> None:
    """The command, if it comes so far, is what follows "--": made to be ours, or nothing that is there."""
    if "--" in words:
        words = [*words[: words.index("--")], "--", "PROGRAM"]
    assert check(checked_jail, place, words, content) in (0, FAILED, TOO_OLD)


@RULES
@given(subcommand=st.sampled_from([("landlock",), ("packet", "lo")]), options=_SENSIBLE, content=_FILTERS)
def test_nearly_right_words(
    checked_jail: Path, place: Path, subcommand: tuple[str, ...], options: list[str], content: bytes
) -> None:
    assert check(checked_jail, place, [*subcommand, *options, "--", "PROGRAM"], content) in (0, FAILED, TOO_OLD)


@RULES
@given(content=_FILTERS)
def test_filters(checked_jail: Path, place: Path, content: bytes) -> None:
    """A filter of system calls may end the program itself; a packet filter is taken by the kernel or not."""
    jailed = ["landlock", "--rx", "PROGRAM", "--filter", "FILTER", "--", "PROGRAM"]
    status = check(checked_jail, place, jailed, content)
    assert status in (0, FAILED) or 0 < status < 128 + 65
    packet = ["packet", "lo", "--filter", "FILTER", "--fd", "9", "--", "PROGRAM"]
    assert check(checked_jail, place, packet, content) in (0, FAILED)
