"""Entries that were written to are found by builds; scratch of the dead goes; what is above a tree is left alone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from umlbuild import digest
from umlbuild.host import checked, process
from umlbuild.host.store import MANIFEST, Store, remove

KEY = "a" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache")
    with store.filling("one", KEY) as out:
        (out / "file").write_bytes(b"content")
        (out / "tree").mkdir()
        (out / "tree/leaf").write_bytes(b"leaf")
    return store


def write_in_place(entry: Path) -> None:
    (entry / "file").write_bytes(b"CONTENT")


def write_with_old_times(entry: Path) -> None:
    before = (entry / "tree/leaf").stat()
    (entry / "tree/leaf").write_bytes(b"LEAF")
    os.utime(entry / "tree/leaf", ns=(before.st_atime_ns, before.st_mtime_ns))


def write_by_another_name(entry: Path) -> None:
    os.link(entry / "file", entry.parent / "link")
    (entry.parent / "link").write_bytes(b"cOntent")


def put_another(entry: Path) -> None:
    (entry / "new").write_bytes(b"Content")
    (entry / "new").rename(entry / "file")


def only_link(entry: Path) -> None:
    os.link(entry / "file", entry.parent / "link")


def only_touch(entry: Path) -> None:
    os.utime(entry / "tree/leaf")


@pytest.mark.parametrize(
    ("harm", "found"),
    [(write_in_place, ["file"]), (write_with_old_times, ["tree"]), (write_by_another_name, ["file"]),
     (put_another, ["file"]), (only_link, []), (only_touch, [])],
)  # fmt: skip
def test_what_was_written_to_is_found(store: Store, harm: Callable[[Path], None], found: list[str]) -> None:
    assert store.damage("one", KEY) == []
    harm(store.path("one", KEY))
    assert store.has("one", KEY)
    assert store.damage("one", KEY) == store.verify("one", KEY) == found
    assert store.discard_damaged("one", KEY) is bool(found)


def test_what_was_not_written_to_is_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> digest.Sha256:
        raise AssertionError(path)

    monkeypatch.setattr(digest, "of_file", read)
    assert store.damage("one", KEY) == []
    with pytest.raises(AssertionError):
        store.verify("one", KEY)
    only_touch(store.path("one", KEY))
    with pytest.raises(AssertionError):
        store.damage("one", KEY)


def test_an_odd_manifest_is_damage_and_no_bug(store: Store) -> None:
    manifest = store.path("one", KEY) / MANIFEST
    for old, new in ((b'"sha256"', b'"sha257"'), (b'"dir"', b'"dis"'), (b'"tree":"', b'"tree":"0')):
        whole = manifest.read_bytes()
        manifest.write_bytes(whole.replace(old, new))
        assert store.verify("one", KEY) != []
        manifest.write_bytes(whole)
    assert store.verify("one", KEY) == []


def test_a_large_directory_counts_by_its_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "BIG", 3)
    store = Store(tmp_path / "cache")
    with store.filling("one", KEY) as out:
        (out / "big").mkdir()
        for number in range(5):
            (out / "big" / str(number)).write_bytes(b"x")
    assert store.damage("one", KEY) == store.verify("one", KEY) == []
    (store.path("one", KEY) / "big/3").write_bytes(b"y")
    assert store.damage("one", KEY) == ["big"]
    subprocess.run(["cp", "-r", str(store.root), str(tmp_path / "copy")], check=True, timeout=60)
    assert Store(tmp_path / "copy").damage("one", KEY) == []  # nothing is known of it there


def test_scratch_goes_when_nobody_holds_it(store: Store) -> None:
    old = time.time() - 10
    with store.working("alive") as alive:
        for name in ("dead", "held"):
            (store.root / "work" / name).mkdir()
        for path in (store.root / "work").iterdir():
            os.utime(path, (old, old))
        (store.root / "work" / "fresh").mkdir()
        fd = os.open(store.root / "work" / "held", os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_SH)
        store.sweep()
        os.close(fd)
        assert {path.name for path in (store.root / "work").iterdir()} == {alive.name, "held", "fresh"}


def test_remove_leaves_what_is_above_alone(tmp_path: Path) -> None:
    above = tmp_path / "above"
    (above / "tree").mkdir(parents=True)
    above.chmod(0o755)
    fd = os.open(above / "tree", os.O_RDONLY)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "x", str(above / "tree")], check=True, timeout=60)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("nothing can be mounted here")
    finally:
        os.close(fd)
    try:
        remove(above / "tree")  # in vain: a mount point is busy
        assert above.stat().st_mode & 0o777 == 0o755
    finally:
        subprocess.run(["umount", str(above / "tree")], check=True, timeout=60)


def test_programs_see_one_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        process.run(["touch", str(tmp_path / "file")], log=None, timeout_s=30)
        with Store(tmp_path / "cache").filling("one", KEY):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "cache/one" / KEY / MANIFEST).stat().st_mode & 0o777 == 0o644


def test_facts_are_believed_until_the_next_boot(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash of the host a file can have its size and times, and not its bytes: nothing waited for the disk."""
    entry = store.path("one", KEY)
    write_in_place(entry)
    checked.record(store.root, KEY, checked.facts_of(entry, MANIFEST))
    assert store.damage("one", KEY) == []
    for boot in ("another", ""):
        monkeypatch.setattr(checked, "_boot", lambda boot=boot: boot)
        assert store.damage("one", KEY) == ["file"]
    (entry / "file").write_bytes(b"content")
    assert store.damage("one", KEY) == []
