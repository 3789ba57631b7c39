"""The archive: the same bytes however its bundle lies on the disk, and sparse again where plain tar unpacks it."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import releasekit

from umlbuild import digest
from umlbuild.errors import StepFailed, ToolFailed
from umlbuild.host import archive, sparse


def packed(bundle: Path, work: Path) -> Path:
    work.mkdir()
    archive.pack(bundle, "m-1", work / "m-1.tar.zst", work)
    return work / "m-1.tar.zst"


def test_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = packed(releasekit.bundle(tmp_path / "a"), tmp_path / "wa")
    other = releasekit.bundle(tmp_path / "elsewhere" / "b", holes=False, umask=0o077)
    releasekit.age(other)
    (other / ".manifest.json").write_text("the store's")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert packed(other, tmp_path / "wb").read_bytes() == one.read_bytes()
    (other / "run").chmod(0o700)
    assert packed(other, tmp_path / "wc").read_bytes() != one.read_bytes()


def test_plain_tar_unpacks_it_sparse(tmp_path: Path) -> None:
    bundle = releasekit.bundle(tmp_path / "a")
    made = packed(bundle, tmp_path / "w")
    assert made.stat().st_size < 20_000
    subprocess.run(["tar", "--zstd", "-xf", made], cwd=tmp_path, check=True, timeout=60)
    image = tmp_path / "m-1" / "root.img"
    assert digest.of_file(image) == digest.of_file(bundle / "root.img")
    assert sparse.used(image) < 100_000
    assert int(image.stat().st_mtime) == releasekit.STAMP
    assert image.stat().st_mode & 0o777 == 0o444
    assert (tmp_path / "m-1" / "run").stat().st_mode & 0o777 == 0o755
    assert sorted(p.name for p in (tmp_path / "m-1").rglob("*")) == sorted(p.name for p in bundle.rglob("*"))


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (0, {}),
        (4096, {}),
        (5000, {}),
        (8192, {0: b"a"}),
        (8192, {8191: b"z"}),
        (1 << 20, {4096: b"b" * 4096, 12288: b"c"}),
        (9 << 30, {0: b"a", (9 << 30) - 1: b"z"}),
    ],
)
def test_holes_in_any_place(tmp_path: Path, size: int, pieces: dict[int, bytes]) -> None:
    """Read by an implementation that is not ours."""
    (bundle := tmp_path / "b").mkdir()
    with (bundle / "root.img").open("wb") as file:
        for at, piece in pieces.items():
            file.seek(at)
            file.write(piece)
        os.truncate(file.fileno(), size)
    archive.write_tar(bundle, "top", tmp_path / "t.tar")
    with tarfile.open(tmp_path / "t.tar") as tar:
        member = tar.getmember("./top/root.img")
        assert member.size == size and member.issparse()
        content = tar.extractfile(member)
        assert content is not None
        for at, piece in pieces.items():
            content.seek(at)
            assert content.read(len(piece)) == piece
        content.seek(4096 * 5)
        assert set(content.read(4096)) <= {0}
    assert (tmp_path / "t.tar").stat().st_size <= 40960


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (bundle := tmp_path / "b").mkdir()
    (bundle / "run").symlink_to("/bin/sh")
    with pytest.raises(StepFailed, match="neither a file nor a directory"):
        archive.write_tar(bundle, "top", tmp_path / "t.tar")


def test_a_cut_archive(tmp_path: Path) -> None:
    made = packed(releasekit.bundle(tmp_path / "a"), tmp_path / "w")
    made.write_bytes(made.read_bytes()[:-200])
    (into := tmp_path / "into").mkdir()
    with pytest.raises(ToolFailed):
        archive.unpack(made, into, tmp_path)
