"""What a cache directory must be before work begins: writable, with room, and on a file system that runs programs.

Nothing is written and nothing is made: the nearest directory that exists speaks for one that does not yet.

Source: statvfs(3) (ST_RDONLY, ST_NOEXEC), access(2); disk figures from measured builds (7.3: 1.5 GB of sources).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from umlbuild.errors import HostError

_ROOM_MB = {
    "packages": 100, "tools": 30, "kernel_source": 1600, "kernel": 400, "prebuilt_kernel": 100,
    "rootfs": 500, "configure": 100, "image": 300, "edited_image": 300, "bundle": 10,
}  # fmt: skip
"""Stage → megabytes that it takes in the cache, scratch included (a small system)."""

_RUNS_PROGRAMS = frozenset({"tools", "image", "edited_image", "prebuilt_kernel", "kernel_config", "kernel", "rootfs"})
"""Stages that start programs which lie in the cache: unpacked tools, kbuild's own, a root's."""

_ELSEWHERE = "set UMLBUILD_CACHE to a directory"


def problems(cache: Path, stages: Iterable[str]) -> Iterator[HostError]:
    """All that keeps these stages from working in a cache directory."""
    stages = list(stages)
    place = _nearest(cache)
    if not place.is_dir():
        yield HostError(f"{cache}: {place} is not a directory", f"{_ELSEWHERE} that can be made")
        return
    flags = os.statvfs(place).f_flag
    if flags & os.ST_RDONLY:
        yield HostError(f"{cache}: is on a read-only file system", f"{_ELSEWHERE} that can be written")
    elif not os.access(place, os.W_OK | os.X_OK):
        yield HostError(f"{cache}: you may not write to {place}", f"{_ELSEWHERE} of yours")
    if flags & os.ST_NOEXEC and (running := sorted(_RUNS_PROGRAMS.intersection(stages))):
        mount = _mount_point(place)
        yield HostError(
            f"{cache}: is on a file system mounted noexec ({mount}), where programs that are built or unpacked"
            f" cannot run ({', '.join(running)})",
            f"{_ELSEWHERE} on another file system (or: mount -o remount,exec {mount})",
        )
    needed_mb = sum(_ROOM_MB.get(stage, 0) for stage in stages)
    free_mb = shutil.disk_usage(place).free // 1_000_000
    if free_mb < needed_mb:
        yield HostError(
            f"{cache}: {free_mb} MB are free, but these steps need about {needed_mb} MB",
            "make room there, or set UMLBUILD_CACHE to a directory with more",
        )


def _nearest(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _mount_point(place: Path) -> Path:
    place = place.resolve()
    while not place.is_mount():
        place = place.parent
    return place
