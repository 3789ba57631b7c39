"""Publishing: one rename, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from umlbuild.errors import StepFailed
from umlbuild.host import publish as publishing
from umlbuild.host.publish import is_same, publish


def bundle(where: Path, text: str) -> Path:
    """An entry of the store with a small bundle."""
    where.mkdir(parents=True)
    (where / ".manifest.json").write_text("{}")
    (where / "manifest.toml").write_text(f'text = "{text}"\n')
    (where / "run").write_text(f"#!/bin/sh\necho {text}\n")
    (where / "run").chmod(0o755)
    with (where / "root.img").open("wb") as file:
        file.write(text.encode())
        os.truncate(file.fileno(), 64 << 20)
    (where / "root.img").chmod(0o444)
    return where


def text_of(dist: Path) -> str:
    """Which bundle stands there; it must be whole."""
    text = (dist / "manifest.toml").read_text().split('"')[1]
    assert (dist / "run").read_text() == f"#!/bin/sh\necho {text}\n"
    assert (dist / "root.img").stat().st_size == 64 << 20
    with (dist / "root.img").open("rb") as file:
        assert file.read(len(text)).decode() == text
    return text


def test_first_second_and_no_change(tmp_path: Path) -> None:
    dist = tmp_path / "dist" / "m"
    one, two = bundle(tmp_path / "1", "one"), bundle(tmp_path / "2", "two")
    assert publish(one, dist) is True
    assert text_of(dist) == "one" and is_same(one, dist) and not is_same(two, dist)
    inode = dist.stat().st_ino
    assert publish(one, dist) is False
    assert dist.stat().st_ino == inode
    assert publish(two, dist) is True
    assert text_of(dist) == "two"
    assert sorted(os.listdir(dist.parent)) == ["m"]
    assert sorted(os.listdir(dist)) == ["manifest.toml", "root.img", "run"]


def test_large_files_are_links_small_ones_copies(tmp_path: Path) -> None:
    entry, dist = bundle(tmp_path / "1", "one"), tmp_path / "dist" / "m"
    publish(entry, dist)
    assert (dist / "root.img").stat().st_ino == (entry / "root.img").stat().st_ino
    (dist / "run").write_text("edited")
    assert (entry / "run").read_text() != "edited"
    assert publish(entry, dist) is True  # the edit is noticed
    assert text_of(dist) == "one"


@pytest.mark.parametrize("damage", ["missing", "more", "mode", "shorter"])
def test_a_damaged_bundle_is_published_again(damage: str, tmp_path: Path) -> None:
    entry, dist = bundle(tmp_path / "1", "one"), tmp_path / "dist" / "m"
    publish(entry, dist)
    match damage:
        case "missing":
            (dist / "run").unlink()
        case "more":
            (dist / "core").touch()
        case "mode":
            (dist / "run").chmod(0o644)
        case "shorter":
            (dist / "root.img").unlink()
            (dist / "root.img").touch()
    assert publish(entry, dist) is True
    assert is_same(entry, dist) and text_of(dist) == "one"


def test_something_else_is_left_alone(tmp_path: Path) -> None:
    dist = tmp_path / "dist" / "m"
    dist.mkdir(parents=True)
    (dist / "thesis.txt").write_text("years of work")
    with pytest.raises(StepFailed, match="is not a bundle") as raised:
        publish(bundle(tmp_path / "1", "one"), dist)
    assert str(dist) in raised.value.hint
    assert (dist / "thesis.txt").read_text() == "years of work"


def test_without_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_exchange", lambda _one, _other: False)
    dist = tmp_path / "dist" / "m"
    publish(bundle(tmp_path / "1", "one"), dist)
    publish(bundle(tmp_path / "2", "two"), dist)
    assert text_of(dist) == "two"
    assert sorted(os.listdir(dist.parent)) == ["m"]


def test_across_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(_source: object, _target: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    dist, entry = tmp_path / "dist" / "m", bundle(tmp_path / "1", "one")
    publish(entry, dist)
    assert text_of(dist) == "one"
    assert (dist / "root.img").stat().st_blocks * 512 < 1 << 20
    assert publish(entry, dist) is False


# Every system call that changes a directory is a point at which a kill may come.
POINTS = ["before-link", "before-mkdtemp", "before-fill", "before-swap", "before-remove"]
KILLED = """
import json, os, signal, sys
from pathlib import Path
from umlbuild.host import publish, sparse, store
entry, dist, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def dying(module, name):
    def die(*_args, **_kwargs):
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, name, die)
module, name = {
    "before-link": (sparse, "link_or_copy"), "before-mkdtemp": (publish.tempfile, "mkdtemp"),
    "before-fill": (publish, "_fill"), "before-swap": (publish, "_exchange"), "before-remove": (store, "remove"),
}[point]
dying(module, name)
publish.publish(entry, dist)
"""


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_leaves_one_whole(point: str, tmp_path: Path) -> None:
    dist = tmp_path / "dist" / "m"
    one, two = bundle(tmp_path / "1", "one"), bundle(tmp_path / "2", "two")
    publish(one, dist)
    done = subprocess.run([sys.executable, "-c", KILLED, str(two), str(dist), point], check=False)
    assert done.returncode == -signal.SIGKILL
    assert text_of(dist) == ("two" if point == "before-remove" else "one")
    publish(two, dist)
    assert text_of(dist) == "two"
    # the next publish sweeps; a second one has nothing to do, so make it do something
    publish(one, dist)
    assert sorted(os.listdir(dist.parent)) == ["m"]


PUBLISHER = """
import sys
from pathlib import Path
from umlbuild.host.publish import publish
entries, dist = [Path(sys.argv[1]), Path(sys.argv[2])], Path(sys.argv[3])
for number in range(400):
    publish(entries[number % 2], dist)
"""


def test_a_reader_always_finds_a_bundle(tmp_path: Path) -> None:
    dist = tmp_path / "dist" / "m"
    one, two = bundle(tmp_path / "1", "one"), bundle(tmp_path / "2", "two")
    publish(one, dist)
    with subprocess.Popen([sys.executable, "-c", PUBLISHER, str(one), str(two), str(dist)]) as child:
        looks, deadline = 0, time.monotonic() + 60
        while child.poll() is None and time.monotonic() < deadline:
            directory = os.open(dist, os.O_RDONLY)  # fails if there is no bundle for a moment
            os.close(directory)
            looks += 1
        child.wait(timeout=60)
    assert child.returncode == 0 and looks > 100


def test_json_is_not_published(tmp_path: Path) -> None:
    entry = bundle(tmp_path / "1", "one")
    assert json.loads((entry / ".manifest.json").read_text()) == {}
    publish(entry, tmp_path / "d" / "m")
    assert not (tmp_path / "d" / "m" / ".manifest.json").exists()
