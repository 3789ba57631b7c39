"""Archives from guests are not trusted."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from umlbuild.runtime import tree
from umlbuild.runtime.failures import MachineError


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def archive(*members: tarfile.TarInfo) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info in members:
            content = b"evil" if info.isreg() else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def test_there_and_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(bytes(range(256)))
    (source / "sub" / "file").chmod(0o750)
    (source / "link").symlink_to("sub/file")
    with tree.pack(source, "name") as file:
        tree.unpack(file, tmp_path / "target")
    target = tmp_path / "target"
    assert (target / "sub" / "file").read_bytes() == bytes(range(256))
    assert (target / "sub" / "file").stat().st_mode & 0o777 == 0o750
    assert os.readlink(target / "link") == "sub/file"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "target"]


DIR = tarfile.DIRTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("../out")],
        [member("/out")],
        [member("d", DIR), member("other")],
        [member("d", DIR), member("d/../../out")],
        [member("d", DIR), member("d/l", tarfile.SYMTYPE, ".."), member("d/l/out")],
        [member("l", tarfile.SYMTYPE, ".."), member("l/out")],
        [member("d", DIR), member("d/h", tarfile.LNKTYPE, "../../secret")],
        [member("d", DIR), member("d/null", tarfile.CHRTYPE)],
        [member("d", DIR), member("d/pipe", tarfile.FIFOTYPE)],
        [],
    ],
)
def test_escapes_are_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    (tmp_path / "secret").write_text("secret")
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(MachineError):
        tree.unpack(archive(*members), place / "target")
    assert not list(place.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["place", "secret"]


def test_garbage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no archive"):
        tree.unpack(io.BytesIO(b"x" * 2000), tmp_path / "target")


def test_no_setuid_bits(tmp_path: Path) -> None:
    tree.unpack(archive(member("f", mode=0o6755)), tmp_path / "f")
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o755
