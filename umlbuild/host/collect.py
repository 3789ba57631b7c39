"""Collecting what is least recently used, until the cache fits a limit; and finding what is damaged.

Candidates are entries, downloads, ccache's objects, apt's lists and logs. An entry's last use is its manifest's mtime
(each build that counts on an entry stamps it), a download's the last time that it was linked into an entry (ctime),
ccache's objects are stamped by ccache. Bytes are counted once for each inode: a package that an entry holds too is not
freed with its download.

Never removed: what a running build counts on, what is being made (its lock is held), what the caller keeps.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from umlbuild import digest
from umlbuild.host import inuse, process
from umlbuild.host.store import MANIFEST, Store, remove

_OTHER = frozenset(
    {"downloads", "ccache", "apt", "keys", "times", "plans", "logs", "locks", "work", "builds", "checked", "unchanged"}
)
"""Directories of a cache that hold no entries; names with a dot are scratch."""
_LOGS_S = 30 * 86_400

_KEY_DIGITS = 64


@dataclass(frozen=True)
class Item:
    """One thing that can be removed by itself."""

    group: str
    """Its stage, or "downloads", "ccache", "apt"."""
    name: str
    """A key, or a path below the group."""
    path: Path
    used: float
    """Seconds since the epoch of its last use."""
    inodes: dict[tuple[int, int], int] = field(repr=False)
    """(device, inode) → bytes on the disk."""

    @property
    def is_entry(self) -> bool:
        """Whether it is an entry with a key."""
        return self.group not in _OTHER

    @property
    def size(self) -> int:
        """Bytes on the disk, shared ones too."""
        return sum(self.inodes.values())


@dataclass(frozen=True)
class Usage:
    """What is in a cache."""

    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes on the disk, each inode once."""
        return sum({key: size for item in self.items for key, size in item.inodes.items()}.values())

    def by_group(self) -> dict[str, tuple[int, int]]:
        """Group → number of items, bytes (each inode once within the group)."""
        groups: dict[str, list[Item]] = {}
        for item in self.items:
            groups.setdefault(item.group, []).append(item)
        return {name: (len(items), Usage(tuple(items)).size) for name, items in sorted(groups.items())}


@dataclass(frozen=True)
class Collected:
    """What a collection did, or would do."""

    removed: tuple[Item, ...]
    busy: tuple[Item, ...]
    """Would have gone, but are in use."""
    freed: int
    left: int
    """Bytes in the cache afterwards."""


def usage_of(store: Store) -> Usage:
    """Everything in a cache that can be collected. Costs a stat for each file."""
    return Usage(tuple(_items(store)))


def collect(
    store: Store,
    *,
    limit: int | None = None,
    older_than_s: float | None = None,
    keep: Collection[str] = (),
    dry_run: bool = False,
) -> Collected:
    """Remove what was not used for `older_than_s`, then the least recently used until all fits `limit` bytes.

    `keep` are keys that stay. Raises: OSError (the cache cannot be written).
    """
    usage = usage_of(store)
    links = Counter(key for item in usage.items for key in item.inodes)
    left, size = usage.size, usage.size
    now = time.time()
    removed: list[Item] = []
    busy: list[Item] = []
    for item in sorted(usage.items, key=lambda item: (item.used, item.group, item.name)):
        old = older_than_s is not None and now - item.used > older_than_s
        if not (old or (limit is not None and left > limit)):
            continue
        if item.is_entry and item.name in keep:
            continue
        if not (_is_free(store, item) if dry_run else _take(store, item)):
            busy.append(item)
            continue
        removed.append(item)
        for key, count in item.inodes.items():
            links[key] -= 1
            left -= count if links[key] == 0 else 0
    if not dry_run:
        _tidy(store, {item.name for item in usage.items if item.is_entry} - {item.name for item in removed})
        if any(item.group == "ccache" for item in removed) and process.find("ccache"):
            # Its own counters are wrong now; it counts anew.
            env = {"CCACHE_DIR": os.fspath(store.root / "ccache")}
            with contextlib.suppress(OSError):
                process.output(["ccache", "--cleanup"], env=env, timeout_s=600)
    return Collected(tuple(removed), tuple(busy), size - left, left)


def check(store: Store) -> Iterator[tuple[Item, list[str]]]:
    """The damaged entries and downloads, with the names in them whose bytes are not the promised ones."""
    usage = usage_of(store)
    bad: set[tuple[int, int]] = set()
    for item in usage.items:
        if item.group == "downloads" and digest.of_file(item.path) != item.path.stem:
            bad |= set(item.inodes)
            yield item, [item.path.name]
    for item in usage.items:
        if item.is_entry:
            names = store.verify(item.group, item.name)
            if not names and bad & set(item.inodes):
                names = ["a damaged package"]
            if names:
                yield item, names


def discard(store: Store, item: Item) -> bool:
    """Remove a damaged item, whoever counts on it; False: it is being made anew just now."""
    if not item.is_entry:
        item.path.unlink(missing_ok=True)
        return True
    return store.discard_if_free(item.group, item.name)


def _take(store: Store, item: Item) -> bool:
    """Remove an item unless it is in use."""
    aside: Path | None
    with inuse.collecting(store) as keys:
        if not item.is_entry:
            if item.group == "apt":
                aside = item.path.with_name(f".{item.name}.removed.{os.getpid()}")
                with store.try_locked("apt", item.name) as locked:
                    if not locked:
                        return False
                    item.path.rename(aside)
            else:  # a build has its own link, or fetches (compiles) again
                item.path.unlink(missing_ok=True)
                return True
        else:
            if item.name in keys:
                return False
            aside = store.put_aside(item.group, item.name)
            if aside is None:
                return False
    remove(aside)  # long: builds may begin meanwhile
    digest.forget_files()
    return True


def _is_free(store: Store, item: Item) -> bool:
    if not item.is_entry:
        return True
    with inuse.collecting(store) as keys, store.try_locked(item.group, item.name) as locked:
        return locked and item.name not in keys


def _tidy(store: Store, entries: Collection[str]) -> None:
    """Remove what belongs to nothing any more: logs, and what keys were made of unless a plan names them."""
    from umlbuild.host.history import History

    planned: set[str] = set()
    for record in History(store.root).records():
        steps = record.get("steps")
        if isinstance(steps, dict):
            planned |= {str(step.get("key")) for step in steps.values() if isinstance(step, dict)}
    for path in store.root.glob("keys/*/*.json"):
        if path.stem not in entries and path.stem not in planned and _is_old(path, 3600):
            path.unlink(missing_ok=True)
    for path in store.root.glob("checked/*"):
        if path.name not in entries and _is_old(path, 3600):
            path.unlink(missing_ok=True)
    known = {key[:12] for key in entries}
    for path in store.root.glob("logs/*.log"):
        if path.stem.rpartition("-")[2] not in known and _is_old(path, _LOGS_S):
            path.unlink(missing_ok=True)


def _is_old(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime > seconds
    except FileNotFoundError:
        return False


def _items(store: Store) -> Iterator[Item]:
    try:
        names = sorted(os.listdir(store.root))
    except FileNotFoundError:
        return
    for name in names:
        group = store.root / name
        if name in _OTHER or name.startswith(".") or not group.is_dir() or group.is_symlink():
            continue
        for entry in sorted(group.iterdir()):
            if len(entry.name) == _KEY_DIGITS and entry.is_dir():
                yield from _item(name, entry.name, entry, _used(entry))
    for path in sorted(store.root.glob("apt/*-*")):
        if not path.name.startswith("."):
            yield from _item("apt", path.name, path, _newest(path))
    for path in _files(store.root / "downloads"):
        if len(path.stem) == _KEY_DIGITS:
            info = path.lstat()
            yield from _item("downloads", path.name, path, max(info.st_mtime, info.st_ctime))
    for path in _files(store.root / "ccache"):
        if path.parent.name not in ("ccache", "tmp", "lock") and path.name not in ("stats", "CACHEDIR.TAG"):
            yield from _item("ccache", path.name, path, path.lstat().st_mtime)


def _item(group: str, name: str, path: Path, used: float) -> Iterator[Item]:
    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
        yield Item(group, name, path, used, dict(_inodes(path)))


def _used(entry: Path) -> float:
    for path in (entry / MANIFEST, entry):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _newest(path: Path) -> float:
    times = [path.stat().st_mtime]
    for root, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                times.append(os.lstat(os.path.join(root, name)).st_mtime)
    return max(times)


def _files(directory: Path) -> Iterable[Path]:
    for root, dirs, files in os.walk(directory):
        dirs.sort()
        yield from (Path(root, name) for name in sorted(files) if not name.startswith("."))


def _inodes(path: Path) -> Iterator[tuple[tuple[int, int], int]]:
    info = path.lstat()
    yield (info.st_dev, info.st_ino), info.st_blocks * 512
    if not stat.S_ISDIR(info.st_mode):
        return
    try:
        names = os.scandir(path)
    except (PermissionError, FileNotFoundError):  # apt's, of another user; what went meanwhile
        return
    with names as rows:
        for row in rows:
            if row.is_dir(follow_symlinks=False):
                yield from _inodes(Path(row.path))
            else:
                with contextlib.suppress(FileNotFoundError):
                    info = row.stat(follow_symlinks=False)
                    yield (info.st_dev, info.st_ino), info.st_blocks * 512
