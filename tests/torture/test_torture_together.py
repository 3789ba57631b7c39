"""Twenty pairs of builds in one cache, half of them of two recipes, with a collector that takes all it can beside."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mirrorkit import mirror
from torturekit import Yard, digests, finished

pytestmark = pytest.mark.slow

PAIRS = 20
DEADLINE_S = 300.0


@pytest.fixture(scope="module")
def pair(small: Yard, room: Path) -> Iterator[tuple[Yard, Yard]]:
    """Two projects and one cache; the second's recipe is of another machine on each request."""
    (room / "second").mkdir()
    (room / "second/cache").symlink_to(small.cache)
    (room / "second/small.lock.toml").write_bytes((small.home / "small.lock.toml").read_bytes())
    with mirror(small) as served:
        yield replace(small, env=served.env, offline=False), Yard(room / "second", env=served.env, offline=False)


def together(builds: list[subprocess.Popen[str]]) -> None:
    for build in builds:
        code, said = finished(build, DEADLINE_S)
        assert code == 0, said


@pytest.mark.timeout(7200)
def test_pairs(pair: tuple[Yard, Yard]) -> None:
    one, other = pair
    good: dict[str, dict[str, str]] = {}
    for host in ("calm", "other"):
        one.be(host)
        one.forget()
        good[host] = one.built()
    stop = threading.Event()
    collected = 0

    def collect() -> None:
        nonlocal collected
        while not stop.is_set():
            code, said = finished(one.start("gc", "--max-size", "0"), DEADLINE_S)
            assert code == 0, said
            collected += said.count(": removed")
            stop.wait(0.2)

    for number in range(PAIRS):
        hosts = ("calm", "other") if number % 2 else ("calm", "calm")
        with_gc = number % 4 >= 2
        thread = threading.Thread(target=collect)
        for yard, host in zip(pair, hosts, strict=True):
            yard.be(host)
        for path in (one.cache / "configure", one.cache / "image", one.cache / "edited_image", one.cache / "bundle"):
            if number % 3 and path.exists():  # these are made in any case, all others every third time
                subprocess.run(["rm", "-rf", str(path)], check=True, timeout=60)
        if number % 3 == 0:
            one.forget()
        stop.clear()
        builds = [one.build(), other.build()]
        if with_gc:
            thread.start()
        try:
            together(builds)
        finally:
            stop.set()
            if with_gc:
                thread.join(DEADLINE_S)
        for yard, host in zip(pair, hosts, strict=True):
            assert digests(yard.dist) == good[host], (number, host)
    assert finished(one.start("du", "--check"))[0] == 0
    print(f"{PAIRS} pairs, {collected} items collected beside them")
