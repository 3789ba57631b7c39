"""A repository of packages, and the same one inflated: as dpkg sees them, they hold the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlbuild import digest
from umlbuild.host import deb, repository
from umlbuild.host.debian import stanzas

CONTROL = "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@localhost>\nDescription: a\n b\n"
INFLATED = {"xz": True, "gzip": True, "none": False, "zstd": False}


def package(place: Path, name: str, compression: str, size: int = 5000) -> Path:
    tree = place / f"tree-{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    tree.chmod(0o755)
    (tree / "DEBIAN/control").write_text(CONTROL.format(name=name))
    (tree / "file").write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
    out = place / f"{name}.deb"
    command("dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", str(tree), str(out))
    return out


def command(*argv: str) -> bytes:
    return subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout


def content(path: Path) -> tuple[bytes, bytes]:
    return command("dpkg-deb", "--fsys-tarfile", str(path)), command("dpkg-deb", "--ctrl-tarfile", str(path))


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
@pytest.mark.parametrize("compression", INFLATED)
def test_an_inflated_package_holds_the_same(tmp_path: Path, compression: str, size: int) -> None:
    made, out = package(tmp_path, "a", compression, size), tmp_path / "out.deb"
    assert deb.inflate(made, out) == INFLATED[compression] == out.exists()
    if out.exists():
        assert content(out) == content(made)
        assert b"data.tar   " in out.read_bytes()


@pytest.mark.parametrize("compression", ["xz", "gzip"])
def test_a_damaged_package_is_left_to_dpkg(tmp_path: Path, compression: str) -> None:
    whole, out = package(tmp_path, "a", compression).read_bytes(), tmp_path / "out.deb"
    middle = whole.index(b"data.tar") + 90
    for text in (whole[:middle], whole[:middle] + b"\xff" * 40 + whole[middle + 40 :], whole[:40], b""):
        broken = tmp_path / "broken.deb"
        broken.write_bytes(text)
        assert not deb.inflate(broken, out) and not out.exists()


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"!<arch>\n", b"!<arch>\ndata.tar.xz".ljust(56) + b"9".ljust(10)])
)
def test_what_is_no_package_is_none(tmp_path_factory: pytest.TempPathFactory, rest: bytes, head: bytes) -> None:
    place = tmp_path_factory.mktemp("deb")
    (place / "a").write_bytes(head + rest)
    assert not deb.inflate(place / "a", place / "out") and not (place / "out").exists()


def test_an_inflated_repository(tmp_path: Path) -> None:
    given_, out = tmp_path / "given", tmp_path / "out"
    (given_ / "pool").mkdir(parents=True)
    paragraphs = []
    for name, compression in (("a", "xz"), ("b", "none"), ("c", "gzip")):
        path = package(tmp_path, name, compression).rename(given_ / "pool" / f"{name}_1_all.deb")
        control = CONTROL.format(name=name)
        paragraphs.append(repository.paragraph(control, path.name, path.stat().st_size, digest.of_file(path)))
    repository.write(given_, "stone", "amd64", paragraphs)
    repository.inflate(given_, out)
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == sorted(
        path.relative_to(given_) for path in given_.rglob("*")
    )
    index = out / "dists/stone/main/binary-amd64/Packages"
    told = index.read_text()
    assert told.endswith("\n\n") and " b\nFilename: pool/a_1_all.deb\n" in told
    for was, now in zip(paragraphs, stanzas(told), strict=True):
        path = out / now["Filename"]
        assert (int(now["Size"]), now["SHA256"]) == (path.stat().st_size, digest.of_file(path))
        assert (now["Package"] == "b") == (now["SHA256"] in was)
        assert content(path) == content(given_ / now["Filename"])
    assert (
        f"{digest.of_file(index)} {len(told)} main/binary-amd64/Packages" in (out / "dists/stone/Release").read_text()
    )
