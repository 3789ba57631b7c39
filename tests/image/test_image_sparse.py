"""Sparse files: copied with their holes, dug where they hold zeros, the same bytes always."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umlbuild import digest
from umlbuild.host import cksum, sparse, sums

PAGE = 4096
ranges = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2 * PAGE), st.booleans()), max_size=6)


def write(path: Path, rows: list[tuple[int, int, bool]], size: int) -> None:
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
        for page, count, zeros in rows:
            file.seek(page * PAGE)
            file.write((b"\0" if zeros else b"\xa5") * max(0, min(count, size - page * PAGE)))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ranges, size=st.integers(0, 300 * PAGE))
def test_copy_and_dig_keep_the_bytes(rows: list[tuple[int, int, bool]], size: int, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    target.unlink(missing_ok=True)
    write(source, rows, size)
    before = source.read_bytes()
    sparse.copy(source, target)
    assert target.read_bytes() == before
    sparse.dig(target)
    assert target.read_bytes() == before
    assert digest.of_file(target) == digest.of_file(source) == digest.of_bytes(before)
    assert digest.of_image(target) == digest.of_image(source) == told(before)
    pages = {at // PAGE for at in range(0, len(before), PAGE) if any(before[at : at + PAGE])}
    # besides: a last page that is no whole one, and the file system's own blocks for the list of extents
    assert sparse.used(target) <= len(pages) * PAGE + 3 * PAGE


def told(data: bytes) -> str:
    """What `digest.of_image` says of an image with these bytes, by its description."""
    chunks = []
    for start in range(0, len(data), 1 << 20):
        chunk = data[start : start + (1 << 20)]
        runs: list[tuple[int, bytes]] = []
        for at in range(0, len(chunk), PAGE):
            page = chunk[at : at + PAGE]
            if any(page) and runs and runs[-1][0] + len(runs[-1][1]) == at:
                runs[-1] = (runs[-1][0], runs[-1][1] + page)
            elif any(page):
                runs.append((at, page))
        if runs:
            told = b"".join(struct.pack(">QQ", at, len(run)) + run for at, run in runs)
            chunks.append([start, digest.of_bytes(told)])
    return digest.of_json([len(data), chunks])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ranges, more=ranges, size=st.integers(1, 300).map(lambda count: count * PAGE))
def test_sums_of_a_copy_are_those_of_any_image(
    rows: list[tuple[int, int, bool]], more: list[tuple[int, int, bool]], size: int, tmp_path: Path
) -> None:
    below, image = tmp_path / "below", tmp_path / "image"
    image.unlink(missing_ok=True)
    write(below, rows, size)
    sums.of(below).write(tmp_path / "sums")
    sparse.copy(below, image)
    with image.open("r+b") as file:
        for at, count, zeros in more:
            file.seek(min(at, size - 1))
            file.write((bytes(count) if zeros else b"\x5a" * count)[: size - min(at, size - 1)])
    made = sums.of(image, below, sums.read(tmp_path / "sums"))
    assert made == sums.of(image)
    assert made.content == digest.of_image(image) == told(image.read_bytes())
    assert made.cksum == cksum.of_file(image)


@pytest.mark.parametrize("change", ["none", "moved", "longer", "one bit", "holes written"])
def test_images_are_told_apart_by_what_they_hold(tmp_path: Path, change: str) -> None:
    one, other = tmp_path / "one.img", tmp_path / "other.img"
    write(one, [(3, PAGE, False), (299, 2 * PAGE, False)], 600 * PAGE)
    sparse.copy(one, other)
    with other.open("r+b") as file:
        match change:
            case "moved":
                write(other, [(4, PAGE, False), (299, 2 * PAGE, False)], 600 * PAGE)
            case "longer":
                file.truncate(601 * PAGE)
            case "one bit":
                file.seek(300 * PAGE + 5)
                file.write(b"\xa4")
            case "holes written":
                file.seek(400 * PAGE)
                file.write(bytes(9 * PAGE))
    assert (digest.of_image(one) == digest.of_image(other)) == (change in ("none", "holes written"))


def test_dig_gives_reserved_space_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 8 << 20)
        file.seek(4 << 20)
        file.write(b"data")
    assert sparse.used(path) >= 8 << 20
    sparse.dig(path)
    assert sparse.used(path) <= 2 * PAGE
    assert path.stat().st_size == 8 << 20


def test_dig_where_holes_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        fallocate = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: -1)

    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_kwargs: Library)
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE) + b"x")
    sparse.dig(path)
    assert path.read_bytes() == bytes(PAGE) + b"x"


def test_copy_keeps_mode_and_time_and_never_replaces(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x")
    source.chmod(0o444)
    os.utime(source, (1, 1_700_000_123))
    sparse.copy(source, target)
    assert target.stat().st_mode & 0o777 == 0o444
    assert target.stat().st_mtime == 1_700_000_123
    with pytest.raises(FileExistsError):
        sparse.copy(source, target)


def test_link_or_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    sparse.link_or_copy(source, tmp_path / "linked")
    assert source.stat().st_ino == (tmp_path / "linked").stat().st_ino

    def elsewhere(_source: object, _target: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    sparse.link_or_copy(source, tmp_path / "copied")
    assert source.stat().st_ino != (tmp_path / "copied").stat().st_ino
    assert (tmp_path / "copied").read_bytes() == b"x"
