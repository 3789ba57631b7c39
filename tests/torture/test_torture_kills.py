"""Builds that are killed at random moments, 200 times; TORTURE_KILLS and TORTURE_SEED give others."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress

import pytest
import torturekit
from torturekit import Yard, digests, finished, left_running

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TORTURE_KILLS", "200"))
SEED = int(os.environ.get("TORTURE_SEED", str(random.SystemRandom().randrange(1 << 32))))
AGAIN_EVERY = 5
"""Kills in a row, at most, before a build is let go to its end."""
HOSTS = ("calm", "other")


def killed(build: subprocess.Popen[str], after_s: float) -> bool:
    """SIGKILL its whole process group after a time; False if it had ended well by then."""
    with suppress(subprocess.TimeoutExpired):
        build.wait(after_s)
        _, said = build.communicate(timeout=10)
        assert build.returncode == 0, said or build.returncode
        return False
    os.killpg(build.pid, signal.SIGKILL)
    build.communicate(timeout=30)
    return True


@pytest.mark.timeout(7200)
def test_killed_builds_leave_nothing_and_harm_nothing(small: Yard) -> None:
    """Two recipes in turn in one place of dist/: it holds one of both, whole, after every kill."""
    print(f"TORTURE_SEED={SEED}")
    chance = random.Random(SEED)
    good: dict[str, dict[str, str]] = {}
    for host in HOSTS:
        small.forget()
        small.be(host)
        begin = time.monotonic()
        good[host] = small.built()
        whole_s = time.monotonic() - begin
    assert good[HOSTS[0]] != good[HOSTS[1]]

    torturekit.adopt_orphans()
    before, mounts = torturekit.children(), torturekit.mounts()
    stages: Counter[str] = Counter()
    kills = rebuilt = 0
    host, fresh, in_a_row = HOSTS[0], True, 0
    while kills < KILLS:
        if fresh:
            host, fresh, in_a_row = HOSTS[host == HOSTS[0]], False, 0
            small.be(host)
            small.forget()
        was_killed = killed(small.build(), chance.uniform(0, whole_s))
        assert left_running(before) == []
        assert digests(small.dist) in good.values(), f"dist/small is neither; {kills} kills"
        if was_killed:
            kills += 1
            in_a_row += 1
            stages[" ".join(sorted({path.parent.name for path in small.scratch()})) or "-"] += 1
        if not was_killed or in_a_row == AGAIN_EVERY:
            assert small.built() == good[host], f"after {kills} kills"
            rebuilt += 1
            fresh = True
    assert small.built() == good[host]
    assert finished(small.start("du", "--check"))[0] == 0
    assert left_running(before) == []
    assert torturekit.mounts() == mounts  # a namespace lives by a process or by a mount: none is left
    print(f"{kills} kills within {whole_s:.1f} s, {rebuilt} rebuilt; scratch at the kill: {dict(stages.most_common())}")

    time.sleep(2.1)  # scratch younger than this is left alone
    small.be("third")
    small.built()
    assert small.scratch() == []
