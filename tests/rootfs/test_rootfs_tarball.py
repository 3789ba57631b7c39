"""Archives are read as tarfile and GNU tar read them, and written so that both understand them."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umlbuild.errors import StepFailed
from umlbuild.host import tarball
from umlbuild.host.tarball import Member

NAMES = st.text(st.sampled_from("abüz☃ .-_'\n"), min_size=1, max_size=8).filter(lambda n: n not in (".", ".."))
LONG = st.sampled_from(["n" * 99, "n" * 100, "n" * 180, "d" * 60 + "/" + "e" * 99, "d" * 156 + "/x", "ü" * 90])
PATHS = st.one_of(st.lists(NAMES, min_size=1, max_size=3).map("/".join), LONG)
IDS = st.sampled_from([0, 42, 1000, 65534, 2_097_151, 2_097_152, 4_000_000_000])
XATTRS = st.dictionaries(
    st.sampled_from(["security.capability", "user.a", "system.posix_acl_access"]), st.binary(max_size=30), max_size=2
)


@st.composite
def members(draw: st.DrawFn) -> list[Member]:
    """Files, links and directories with distinct paths, sorted."""
    made = []
    files: list[str] = []
    for path in sorted(set(draw(st.lists(PATHS, max_size=6))), key=tarball.order_of):
        kind = draw(st.sampled_from(["file", "file", "dir", "symlink", "link", "fifo", "char"]))
        base = Member(path, "fifo", 0o644, draw(IDS), draw(IDS), draw(st.integers(0, 2_000_000_000)))
        mode = draw(st.integers(0, 0o7777))
        if kind == "link" and files:
            made.append(base.but(kind="link", mode=mode, target=draw(st.sampled_from(files))))
        elif kind == "dir":
            made.append(base.but(kind="dir", mode=mode, xattrs=draw(XATTRS)))
        elif kind == "symlink":
            made.append(base.but(kind="symlink", mode=mode, target=draw(PATHS)))
        elif kind == "char":
            made.append(base.but(kind="char", mode=mode, device=(5, 1)))
        elif kind == "fifo":
            made.append(base.but(mode=mode))
        else:
            made.append(base.but(kind="file", mode=mode, data=draw(st.binary(max_size=1500)), xattrs=draw(XATTRS)))
            files.append(path)
    return made


def facts(member: Member) -> tuple[object, ...]:
    content = tarball.content(member) if member.kind == "file" else b""
    return (
        member.path, member.kind, member.mode, member.uid, member.gid, member.mtime, member.target,
        dict(member.xattrs), member.device, content,
    )  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members())
def test_what_is_written_is_read_again(tmp_path: Path, made: list[Member]) -> None:
    archive, copy = tmp_path / "a.tar", tmp_path / "b.tar"
    tarball.write(made, archive)
    got = tarball.read(archive)
    assert [facts(member) for member in got] == [facts(member) for member in made]
    tarball.write(got, copy)
    assert copy.read_bytes() == archive.read_bytes(), "untouched members are copied as they stand"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members())
def test_tarfile_reads_the_same(tmp_path: Path, made: list[Member]) -> None:
    archive = tmp_path / "a.tar"
    tarball.write(made, archive)
    with tarfile.open(archive) as tar:
        rows = tar.getmembers()
    assert len(rows) == len(made)
    for row, member in zip(rows, made, strict=True):
        assert row.name.removeprefix("./") == member.path
        assert (row.mode, row.uid, row.gid, row.mtime) == (member.mode, member.uid, member.gid, member.mtime)
        assert row.size == member.size


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_foreign_formats_are_read(tmp_path: Path, form: int) -> None:
    archive = tmp_path / "a.tar"
    long = "d" * 90 + "/" + "f" * 90
    with tarfile.open(archive, "w", format=form) as tar:
        for name, size in ((long, 700), ("./x", 0), ("y/", 0)):
            info = tarfile.TarInfo(name)
            info.size = size
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(bytes(size)))
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.LNKTYPE, long if form != tarfile.USTAR_FORMAT else "./x"
        tar.addfile(link)
    got = tarball.read(archive)
    assert [(m.path, m.kind, m.size) for m in got] == [
        (long, "file", 700), ("x", "file", 0), ("y", "dir", 0), ("l", "link", 0),
    ]  # fmt: skip
    assert got[-1].target in (long, "x")


def test_gnu_tar_unpacks_it(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    made = [
        Member("", "dir", 0o755),
        Member("a", "dir", 0o2750),
        Member("a/file", "file", 0o640, data=b"hello"),
        Member("a/hard", "link", 0o640, target="a/file"),
        Member("a/soft", "symlink", 0o777, target="../" + "t" * 150),
        Member("a/" + "long" * 60, "file", 0o600, data=b"x" * 513),
    ]
    tarball.write(made, archive)
    into = tmp_path / "into"
    into.mkdir()
    done = subprocess.run(
        ["tar", "-C", into, "--no-same-owner", "-pxf", archive], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (into / "a/file").read_bytes() == b"hello"
    assert (into / "a/hard").stat().st_ino == (into / "a/file").stat().st_ino
    assert (into / "a/soft").readlink() == Path("../" + "t" * 150)
    assert (into / ("a/" + "long" * 60)).stat().st_mode & 0o7777 == 0o600
    assert archive.stat().st_size % 10240 == 0


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:700], "cut off"),
        (lambda data: b"X" + data[1:], "damaged"),
        (lambda data: b"no tar at all" * 50, "no tar archive"),
    ],
)
def test_a_broken_archive_is_said(tmp_path: Path, damage: object, says: str) -> None:
    archive = tmp_path / "a.tar"
    tarball.write([Member("f", "file", 0o644, data=b"x" * 1000)], archive)
    archive.write_bytes(damage(archive.read_bytes()))  # type: ignore[operator]
    with pytest.raises(StepFailed, match=says):
        tarball.read(archive)


def test_an_empty_archive_has_no_members(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.touch()
    assert tarball.read(archive) == []
    tarball.write([], archive)
    assert tarball.read(archive) == []
