"""Which entries hold the bytes of their manifest, without reading again what nobody has written to since.

`checked/<key>` in the cache keeps where an entry was (device and inode of its directory) and a digest over the name,
inode, size, mtime and ctime of each file in it, taken before the files were hashed. The kernel alone sets a ctime, and
does at each write, link and change of times, also through another name of the file. So an entry with the same facts was
not written to; one with other facts is read again (a new hard link suffices: then it is read once for nothing). What a
disk damages by itself changes no ctime: `gc --check` reads everything.

Two writes within one tick of the kernel's clock have one ctime. Facts are therefore older than a tick before anything
is hashed: a later write has a later ctime, an earlier one is in the hash.

A directory of more than BIG files has no digest in the manifest (hashing 60 000 sources takes seconds). It counts as
damaged if it is where it was and its facts are others; a copy of it elsewhere is trusted.

The store does not wait for the disk (writing an image twice and a root's archive takes longer than all else of a small
edit), so after a crash of the host a file may have its facts and not its bytes. Facts are therefore believed until the
next boot only; after it each entry that is used is read once.

Source: stat(2), utimensat(2), clock_getres(2), random(4).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umlbuild import digest
from umlbuild.host import records

BIG = 2000
"""Files."""

_CLOCK_REALTIME_COARSE = 5  # of linux/time.h; Python does not name it


@dataclass(frozen=True)
class Facts:
    """What the file system says of an entry."""

    place: tuple[int, int]
    small: str
    """Digest over the facts of files and small directories."""
    big: str
    """The same of the big directories."""


def facts_of(entry: Path, without: str) -> Facts:
    """The facts of an entry, when all are older than a tick; `without` is a name that is left out. Raises: OSError."""
    digests = {True: hashlib.sha256(), False: hashlib.sha256()}
    newest = 0
    for name in sorted(os.listdir(entry)):
        if name != without:
            rows, latest = _rows(os.fspath(entry / name))
            digests[len(rows) > BIG].update(digest.canonical_json([name, rows]))
            newest = max(newest, latest)
    tick = time.clock_getres(_CLOCK_REALTIME_COARSE)
    if 0 <= time.time() - newest / 1e9 < 2 * tick:
        time.sleep(2 * tick)
    info = entry.stat()
    return Facts((info.st_dev, info.st_ino), digests[False].hexdigest(), digests[True].hexdigest())


def _boot() -> str:
    """What tells this boot of the host from any other; "" if it is not known."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def record(root: Path, key: str, facts: Facts) -> None:
    """Remember that an entry with these facts is as it should be; where the cache cannot be written, nothing."""
    data = {"boot": _boot(), "place": facts.place, "small": facts.small, "big": facts.big}
    records.write(root / "checked" / key, data)


def recorded(root: Path, key: str) -> Facts | None:
    """What was remembered since the host was booted."""
    data: dict[str, Any] = records.read(root / "checked" / key) or {}
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if not data["boot"] or data["boot"] != _boot():
            return None
        device, inode = data["place"]
        return Facts((device, inode), data["small"], data["big"])
    return None


def damage(entry: Path, names: Mapping[str, Mapping[str, object]], facts: Facts, known: Facts | None) -> list[str]:
    """The names of an entry whose bytes are not what its manifest says."""
    if known == facts:
        return []
    found = [name for name, fact in names.items() if not _is_as_told(entry / name, fact)]
    if known is not None and known.place == facts.place and known.big != facts.big:
        found += [name for name, fact in names.items() if fact == {"type": "dir"}]
    return found


def _is_as_told(path: Path, fact: Mapping[str, object]) -> bool:
    match fact.get("type"):
        case "file":
            told = digest.kind_in(fact)
            return path.is_file() and digest.of_content(path, told) == fact.get(told)
        case "dir":
            return path.is_dir() and ("tree" not in fact or digest.of_tree(path) == fact["tree"])
        case kind:
            return kind == "other"


def _rows(path: str) -> tuple[list[tuple[str, int, int, int, int]], int]:
    """(path, inode, size, mtime, ctime) of a file, or of all below a directory; the newest ctime. Nanoseconds."""
    info = os.lstat(path)
    if not os.path.isdir(path) or os.path.islink(path):
        return [("", info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)], info.st_ctime_ns
    rows: list[tuple[str, int, int, int, int]] = []
    waiting = [path]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for row in found:
                if row.is_dir(follow_symlinks=False):
                    waiting.append(row.path)
                info = row.stat(follow_symlinks=False)
                name = row.path[len(path) :]
                rows.append((name, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns))
    rows.sort()
    return rows, max((row[4] for row in rows), default=0)
