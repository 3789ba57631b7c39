"""One byte of every file of every kind of entry, in turn; files cut off, emptied, gone. Never a wrong bundle."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torturekit
from torturekit import Yard, copied, finished

from umlbuild.host.store import MANIFEST, remove

pytestmark = pytest.mark.slow


def flipped(path: Path) -> None:
    """Another byte somewhere in it, in place: all its names see that."""
    mode, size = path.stat().st_mode, path.stat().st_size
    path.chmod(0o644)
    with path.open("r+b") as file:
        at = random.Random(path.name).randrange(size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    path.chmod(mode)


def cut(path: Path) -> None:
    """Without its second half."""
    os.truncate(path, path.stat().st_size // 2)


HARMS: dict[str, Callable[[Path], None]] = {"flipped": flipped, "cut": cut, "gone": Path.unlink}
STAGES = ("packages", "tools", "prebuilt_kernel", "rootfs", "configure", "image", "edited_image", "bundle")


def victims(yard: Yard, stage: str) -> Iterator[Path]:
    """The manifest, each top-level file, and one file of each directory of each entry of a stage."""
    entries = [entry for entry in yard.entries() if entry.parent.name == stage]
    assert entries
    for entry in entries:
        for path in sorted(entry.iterdir()):
            inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
            yield from inside[:: max(1, len(inside) - 1)] if path.is_dir() else [path]


@pytest.fixture(scope="module")
def good(small: Yard) -> dict[str, str]:
    return small.built()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("stage", STAGES)
def test_damage(small: Yard, good: dict[str, str], room: Path, stage: str, how: str) -> None:
    """The builds need what is damaged: what stands above it is gone, and dist/ too."""
    assert small.built() == good
    above = STAGES[STAGES.index(stage) + 1 :]
    count = refused = collected = 0
    for number in range(len(list(victims(small, stage)))):
        path = list(victims(small, stage))[number]
        if path.stat().st_size == 0:
            continue
        copies = [path, *(file for file in (small.cache / "downloads").rglob("*") if file.samefile(path))]
        HARMS[how](path)
        if how == "gone" and len(copies) > 1:
            copies[1].unlink()
        named, _ = finished(small.start("du", "--check"))
        assert named == 1, path
        for name in above:
            remove(small.cache / name)
        remove(small.home / "dist")
        code, said = finished(small.build())
        fetching = code in (1, 2) and "is not among the downloads" in said
        if fetching:  # its own download is the damaged file, and there is no network
            restore(small, room)
            assert small.built() == good
        else:
            assert code == 0, said
            assert torturekit.digests(small.dist) == good, (path, said)
        count += 1
        refused += fetching
        if finished(small.start("du", "--check"))[0]:  # a manifest that nobody had to read
            assert path.name == MANIFEST, path
            assert finished(small.start("gc", "--check"))[0] == 0
            for name in above:
                remove(small.cache / name)
            assert small.built() == good
            assert finished(small.start("du", "--check"))[0] == 0
            collected += 1
    print(f"{stage}, {how}: {count} files, {refused} refused without a network, {collected} left to gc --check")


def restore(small: Yard, room: Path) -> None:
    """The downloads as they were."""
    source = room / "downloads"
    for path in source.rglob("*.deb"):
        target = small.cache / "downloads" / path.relative_to(source)
        target.unlink(missing_ok=True)
        target.write_bytes(path.read_bytes())


@pytest.fixture(scope="module", autouse=True)
def spare(small: Yard, room: Path) -> None:
    """A second copy of the downloads."""
    copied(small, room / "spare").cache.joinpath("downloads").rename(room / "downloads")
