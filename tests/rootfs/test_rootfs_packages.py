"""The packages stage: every byte as pinned, fetched once, in a repository that is the same each time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rootfskit import make_deb, pin_of, served

from umlbuild.errors import FetchError, StepFailed
from umlbuild.host.debian import stanzas
from umlbuild.specs.packages import DebPin, PackagesSpec
from umlbuild.stages import packages
from umlbuild.stages.context import Context


@pytest.fixture
def site(tmp_path: Path) -> tuple[Path, tuple[DebPin, ...]]:
    root = tmp_path / "site"
    pins = tuple(
        pin_of(make_deb(root, name, version), root, name, version) for name, version in (("a", "1.0"), ("b", "1:2~x+1"))
    )
    return root, pins


def run(where: Path, url: str, pins: tuple[DebPin, ...], suite: str | None = "stone", kept: Path | None = None) -> Path:
    (where / "out").mkdir(parents=True)
    (where / "work").mkdir()
    context = Context(
        work=where / "work", log=where / "log", mirrors={"debian": url}, downloads=kept or where / "downloads"
    )
    packages.run(PackagesSpec(suite=suite, architecture="amd64", pins=pins), {}, where / "out", context)
    return where / "out"


def tree_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_repository(tmp_path: Path, site: tuple[Path, tuple[DebPin, ...]]) -> None:
    root, pins = site
    with served(root) as url:
        out = run(tmp_path / "1", url, pins)
    index = out / "dists/stone/main/binary-amd64/Packages"
    rows = list(stanzas(index.read_text()))
    assert [(r["Package"], r["Version"], r["Filename"], r["SHA256"]) for r in rows] == [
        (pin.name, pin.version, f"pool/{pin.filename}", pin.sha256) for pin in pins
    ]
    assert index.read_text().endswith("\n\n"), "debootstrap needs the empty line"
    release = (out / "dists/stone/Release").read_text()
    assert "Suite: stone\n" in release
    assert str(tmp_path) not in release + index.read_text()


def test_a_second_recipe_fetches_nothing_and_gets_the_same_bytes(
    tmp_path: Path, site: tuple[Path, tuple[DebPin, ...]]
) -> None:
    root, pins = site
    kept = tmp_path / "kept"
    with served(root) as url:
        first = run(tmp_path / "1", url, pins, kept=kept)
    second = run(tmp_path / "2", "http://127.0.0.1:9/", pins, kept=kept)
    assert tree_of(first) == tree_of(second)
    deb = f"pool/{pins[0].filename}"
    assert os.path.samefile(first / deb, second / deb)


def test_a_damaged_download_is_fetched_anew(tmp_path: Path, site: tuple[Path, tuple[DebPin, ...]]) -> None:
    root, pins = site
    kept = tmp_path / "kept"
    bad = kept / pins[0].sha256[:2] / f"{pins[0].sha256}.deb"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(bytes(pins[0].size))
    with served(root) as url:
        out = run(tmp_path / "1", url, pins, kept=kept)
    assert (out / "pool" / pins[0].filename).read_bytes() == (root / pins[0].path).read_bytes()


def test_without_a_suite_there_are_only_packages(tmp_path: Path, site: tuple[Path, tuple[DebPin, ...]]) -> None:
    root, pins = site
    with served(root) as url:
        out = run(tmp_path / "1", url, pins, suite=None)
    assert sorted(path.name for path in out.iterdir()) == ["pool"]


def test_other_bytes_than_pinned_are_refused(tmp_path: Path, site: tuple[Path, tuple[DebPin, ...]]) -> None:
    root, pins = site
    wrong = pins[0].model_copy(update={"sha256": "0" * 64})
    with served(root) as url, pytest.raises(FetchError, match="was promised"):
        run(tmp_path / "1", url, (wrong,))
    assert not list((tmp_path / "1/downloads").rglob("*.deb"))
    assert not list((tmp_path / "1/out/pool").iterdir())


def test_a_package_that_the_mirror_dropped(tmp_path: Path, site: tuple[Path, tuple[DebPin, ...]]) -> None:
    root, pins = site
    gone = pins[0].model_copy(update={"path": "pool/main/a/a/a_0.9_amd64.deb"})
    with served(root) as url, pytest.raises(FetchError, match="does not have it any more") as caught:
        run(tmp_path / "1", url, (gone,))
    assert "umlbuild lock RECIPE --update a" in caught.value.hint


def test_an_archive_without_a_mirror(tmp_path: Path, site: tuple[Path, tuple[DebPin, ...]]) -> None:
    secure = site[1][0].model_copy(update={"archive": "security"})
    with pytest.raises(StepFailed, match="security archive") as caught:
        run(tmp_path / "1", "http://127.0.0.1:9/", (secure,))
    assert "UMLBUILD_SECURITY_MIRROR" in caught.value.hint
