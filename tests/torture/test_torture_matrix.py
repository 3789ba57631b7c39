"""One lock, built where everything else is another one: the same bytes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import bundles
import pytest
from torturekit import Yard, copied, facts, finished, vendored

pytestmark = pytest.mark.slow

UID = 54_321
TIMEOUT_S = 3000
"""A kernel with one compiler at a time, on a busy machine."""


@dataclass(frozen=True)
class Place:
    """What is another one there."""

    directory: str = "plain"
    user: bool = False
    umask: int = 0o022
    clock: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


EVERYTHING = Place(
    directory="a very/long path ünd other", user=True, umask=0o077,
    env={"TZ": "Pacific/Chatham", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "UMLBUILD_JOBS": "1", "HOME": "/"},
)  # fmt: skip
"""Not the clock: libfaketime's semaphore would be root's. It is another time anyway."""
PLACES = {
    "directory": Place(directory=EVERYTHING.directory),
    "user": Place(user=True),
    "umask 077": Place(umask=0o077),
    "umask 000": Place(umask=0),
    "TZ": Place(env={"TZ": "Pacific/Chatham"}),
    "LC_ALL": Place(env={"LC_ALL": "tr_TR.UTF-8", "LANG": "de_DE.UTF-8"}),
    "clock back": Place(clock="2001-02-03 04:05:06"),
    "clock ahead": Place(clock="2037-02-03 04:05:06"),
    "jobs": Place(env={"UMLBUILD_JOBS": "1"}),
    "one core": Place(env={"TASKSET": "1"}),
    "everything": EVERYTHING,
}


def as_user(home: Path, argv: Sequence[str]) -> list[str]:
    """The words before a command that make it a user's with subordinate ids, known in a mount namespace only."""
    etc = home.parent / f"{home.name}.etc"
    etc.mkdir()
    row = f"torture:x:{UID}:{UID}::{home}:/bin/sh\n"
    added = {
        "passwd": row, "group": f"torture:x:{UID}:\n", "subuid": "torture:700000:65536\n",
        "subgid": "torture:700000:65536\n",
    }  # fmt: skip
    steps: list[str] = []
    for name, text in added.items():
        file = Path("/etc", name)
        (etc / name).write_text((file.read_text() if file.exists() else "") + text)
        if not file.exists():
            pytest.skip(f"there is no {file} that another one could be mounted over")
        steps.append(f"mount --bind {shlex.quote(str(etc / name))} {file}")
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups", "--inh-caps=-all"]
    steps.append(f"exec {shlex.join([*user, '--', *argv])} \"$@\"")
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", " && ".join(steps), "sh"]


def released(yard: Yard, where: Place) -> dict[str, str]:
    """The facts of a release made there."""
    env = dict(where.env)
    before = ["taskset", "1"] if env.pop("TASKSET", "") else []
    if where.clock:
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        if library is None:
            pytest.skip("no libfaketime (apt-get install faketime)")
        env |= {"LD_PRELOAD": str(library), "FAKETIME": f"@{where.clock}", "DONT_FAKE_MONOTONIC": "1"}
    if where.user:
        if os.geteuid() != 0:
            pytest.skip("only root can build as another user")
        before = as_user(yard.home, before)
        for path in (yard.home, *yard.home.rglob("*")):
            os.chown(path, UID, UID)
    there = replace(yard, env={**yard.env, **env})
    words = ("release", f"recipe={yard.name}.toml", "locked=1", "offline=1")
    code, said = finished(there.start(*words, before=before, umask=where.umask), TIMEOUT_S)
    assert code == 0, said
    assert yard.released.stat().st_uid == (UID if where.user else os.geteuid())
    return facts(yard, Path(cache) if (cache := there.env.get("UMLBUILD_CACHE")) else None)


def same(calm: Mapping[str, str], other: Mapping[str, str]) -> None:
    """Show what is there, and fail where it differs."""
    for name in sorted({*calm, *other}):
        print(f"{'=' if calm.get(name) == other.get(name) else 'DIFFERS'}  {other.get(name, '')[:16]:16}  {name}")
    assert other == calm


@pytest.fixture(scope="module")
def calm(small: Yard, room: Path) -> dict[str, str]:
    return released(copied(small, room / "calm"), Place())


@pytest.mark.parametrize("what", PLACES)
def test_the_small_recipe(small: Yard, calm: dict[str, str], room: Path, what: str) -> None:
    where = PLACES[what]
    same(calm, released(copied(small, room / "places" / what.replace(" ", "") / where.directory), where))


@pytest.mark.timeout(7200)
def test_the_router_with_its_kernel_from_source(room: Path) -> None:
    """Once out of the other tests' cache (or into it), once anew without a compiler cache."""
    yard = vendored(bundles.PROJECT / "recipes/router.toml", room / "router")
    calm = released(replace(copied(yard, room / "calm"), env={"UMLBUILD_CACHE": str(bundles.CACHE)}), Place())
    # make cannot work below a directory with a space
    other = replace(EVERYTHING, directory="router-other/a-long-path/to-it")
    same(calm, released(copied(yard, room / other.directory), other))
