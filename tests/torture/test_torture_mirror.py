"""A mirror that breaks off, sends rubbish, or nothing: rebuilt all the same, or told; nothing wrong is kept."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mirrorkit import Answer, Mirror, mirror
from torturekit import Yard, copied, digests, finished

from umlbuild import digest
from umlbuild.host.store import remove

pytestmark = pytest.mark.slow

LARGE = 1 << 20


@dataclass(frozen=True)
class Case:
    """How a mirror harms, and what a build makes of it."""

    harm: Callable[[Answer], None]
    fails_with: str = ""
    """A pattern of the error; "": the build succeeds."""


def on(attempts: int, **changes: object) -> Callable[[Answer], None]:
    """Change the first answers for each path."""

    def harm(answer: Answer) -> None:
        if answer.attempt < attempts:
            for name, value in changes.items():
                setattr(answer, name, value)

    return harm


def rubbish(answer: Answer) -> None:
    if len(answer.data) > LARGE:
        answer.data = os.urandom(len(answer.data))


def one_bit(answer: Answer) -> None:
    data = bytearray(answer.data)
    data[len(data) // 2] ^= 1
    answer.data = bytes(data)


def rubbish_then_cut(answer: Answer) -> None:
    if answer.attempt == 0:
        answer.length, answer.data = len(answer.data), os.urandom(100)
        answer.only = 100


def too_short(answer: Answer) -> None:
    answer.data = answer.data[:-10]


def too_long(answer: Answer) -> None:
    answer.data += b"more"


def cut_large(answer: Answer) -> None:
    if answer.attempt < 4 and len(answer.data) > LARGE:
        answer.only = 5_000_000


def stall_large(answer: Answer) -> None:
    if answer.attempt < 1 and len(answer.data) > LARGE:
        answer.only, answer.stall_s = 5_000_000, 90


CASES = {
    "cut after 100 bytes, twice": Case(on(2, only=100)),
    "cut after the headers": Case(on(1, only=0)),
    "no answer, twice": Case(on(2, status=0)),
    "no answer ever": Case(on(99, status=0), r"Remote end closed connection|Connection aborted"),
    "always cut": Case(on(99, only=100), r"connection broke|IncompleteRead|Connection broken"),
    "large ones cut every 5 MB": Case(cut_large),
    "large ones stall for 90 s": Case(stall_large),
    "503, twice": Case(on(2, status=503)),
    "503 ever": Case(on(99, status=503), "the server answers 503"),
    "404": Case(on(99, status=404), r"does not have it any more.*umlbuild lock RECIPE --update"),
    "rubbish": Case(rubbish, r"sha256 is [0-9a-f]{64}, but [0-9a-f]{64} was promised; nothing was kept"),
    "one bit": Case(one_bit, r"sha256 is .* was promised; nothing was kept"),
    "rubbish, cut, then well": Case(rubbish_then_cut, r"|was promised; nothing was kept"),
    "ten bytes too few": Case(too_short, r"bytes came, \d+ were promised|connection broke|the server answers"),
    "four bytes too many": Case(too_long, r"bytes came, \d+ were promised"),
}


@pytest.fixture(scope="module")
def good(small: Yard) -> dict[str, str]:
    return small.built()


@pytest.fixture(scope="module")
def served(small: Yard) -> Iterator[Mirror]:
    with mirror(small) as there:
        yield there


@pytest.fixture
def online(small: Yard, good: dict[str, str], served: Mirror, room: Path) -> Iterator[Yard]:
    """A yard without downloads, and with this mirror."""
    yard = replace(copied(small, room / "online"), env=served.env, offline=False)
    remove(yard.cache)
    yield yard
    remove(yard.home)


def nothing_wrong(yard: Yard) -> None:
    for path in (yard.cache / "downloads").glob("*/[!.]*"):
        assert digest.of_file(path) == path.stem


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", CASES)
def test_mirror(online: Yard, good: dict[str, str], served: Mirror, name: str) -> None:
    case = CASES[name]
    served.be(case.harm)
    begin = time.monotonic()
    code, said = finished(online.build(), 600)
    print(f"{name}: exit {code}, {time.monotonic() - begin:.0f} s, {served.sent >> 20} MiB sent")
    nothing_wrong(online)
    if code == 0:
        assert not case.fails_with or case.fails_with.startswith("|"), said
    else:
        assert code == 1 and "Traceback" not in said, said
        assert re.search(case.fails_with or "succeeds", said, re.DOTALL), said
        assert not online.dist.exists()
        served.be(lambda _answer: None)
        assert finished(online.build())[0] == 0
    assert digests(online.dist) == good


def test_a_killed_download_is_resumed(online: Yard, good: dict[str, str], served: Mirror) -> None:
    whole = sum(path.stat().st_size for path in (online.home.parent / "small/cache/downloads").rglob("*.deb"))
    served.be(stall_large)
    build = online.build()
    end = time.monotonic() + 60
    while served.sent < 5_000_000 and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(build.pid, signal.SIGKILL)
    build.communicate(timeout=30)
    nothing_wrong(online)
    before = served.sent
    served.be(lambda _answer: None)
    assert finished(online.build())[0] == 0
    assert digests(online.dist) == good
    assert served.sent <= whole - 4_000_000
    print(f"{before >> 20} MiB before the kill, {served.sent >> 20} after, {whole >> 20} in all")
