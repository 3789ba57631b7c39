"""`umlbuild verify`: what it finds in releases and bundles, and that a bundle comes out the same when built again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import bundles
import pytest
import releasekit

from umlbuild import rebuild, verify
from umlbuild.cli import run as umlbuild
from umlbuild.errors import StepFailed, UserError
from umlbuild.host import release
from umlbuild.host.release import Wish
from umlbuild.host.store import Store

Change = Callable[[Path], object]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    bundle = releasekit.bundle(tmp_path / "bundle")
    release.make(bundle, tmp_path / "dist" / "m-1", Wish("m", "1"), Store(tmp_path / "cache"), lambda _text: None)
    return tmp_path / "dist" / "m-1"


def test_all_is_well(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert umlbuild(["verify", str(made)]) == 0
    assert umlbuild(["verify", str(tmp_path / "bundle")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_changed_archive(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = made / "m-1.tar.zst"
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.write_bytes(data)
    assert umlbuild(["verify", str(made)]) == 1
    assert "m-1.tar.zst: its sha256 is not the one in SHA256SUMS" in capsys.readouterr().err


def test_another_manifest_beside_the_archive(made: Path) -> None:
    """Also where its sum is right: somebody without the key made this release."""
    (made / "manifest.toml").write_text((made / "manifest.toml").read_text() + "# more\n")
    subprocess.run("sha256sum m-1.tar.zst *.toml >SHA256SUMS", shell=True, cwd=made, check=True, timeout=60)
    says = "manifest[.]toml: is not the same beside the archive and in it"
    with pytest.raises(StepFailed, match=says), verify.checked(made, None, lambda _text: None):
        pass


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: (b / "run").write_text("#!/bin/sh\necho two\n"), "run: its sha256 is not"),
        (lambda b: (b / "run").write_text("longer than before, by far\n"), "run: has 27 bytes instead of 19"),
        (lambda b: (b / "run").chmod(0o4755), "run: its mode is 4755 instead of 0755"),
        (lambda b: (b / "lib" / "libc.so.6").unlink(), "lib/libc.so.6: is not there"),
        (lambda b: (b / "lib" / "more.so").write_text(""), "lib/more.so: is not in manifest.toml"),
        (lambda b: ((b / "run").rename(b.parent / "run"), (b / "run").symlink_to("../run")), "run: is not there"),
    ],
)
def test_changed_bundles(tmp_path: Path, change: Change, says: str) -> None:
    bundle = releasekit.bundle(tmp_path / "b")
    change(bundle)
    (problem,) = verify.problems_of(bundle)
    assert problem.startswith(says)


@pytest.mark.parametrize("text", ["", "files = 1", "[files.x]\nsize = 1", "no toml", "[files]\nx = 1"])
def test_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.toml").write_text(text)
    with pytest.raises(StepFailed, match="is no manifest of a bundle"):
        verify.problems_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: None, ""),
        (lambda b: (b / "run").write_text("#!/bin/sh\necho onX\n"), "run: differs from byte 17 on"),
        (lambda b: (b / "run").write_text("#!/bin/sh\necho one\nmore"), "run: differs from byte 19 on"),
        (lambda b: (b / "run").unlink(), "run: is not in the bundle that was built again"),
        (lambda b: (b / "a").write_text(""), "a: is only in the bundle that was built again"),
        (lambda b: (b / "run").chmod(0o700), "run: has mode 0755, built again 0700"),
        (lambda b: [(b / n).write_text("x") for n in ("manifest.toml", "run", "recipe.toml")], "recipe.toml: differs"),
    ],
)
def test_the_first_difference(tmp_path: Path, change: Change, says: str) -> None:
    one, other = releasekit.bundle(tmp_path / "a"), releasekit.bundle(tmp_path / "b")
    change(other)
    found = verify.first_difference(one, other)
    assert found.startswith(says) and bool(found) == bool(says)


def test_what_cannot_be_checked(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert umlbuild(["verify", str(tmp_path / "empty")]) == 2
    assert umlbuild(["verify", str(tmp_path / "bundle"), "--key", "x"]) == 2
    assert umlbuild(["verify", str(made), "--recipe", "x"]) == 2
    assert umlbuild(["verify", str(made), "--key", str(tmp_path / "nothing")]) == 2
    said = capsys.readouterr().err
    for words in ("is neither a release", "a bundle has no signature", "for --rebuild only", "No such file"):
        assert words in said


HASH = "$y$j9T$abcdefgh$0123456789abcdef"


@pytest.mark.build
@pytest.mark.timeout(900)
def test_built_again_by_another_hand(tmp_path: Path) -> None:
    """One lock, built twice: another directory, store, umask, time, time zone, locale and home; first with secrets."""
    (tmp_path / "first" / "motd").parent.mkdir()
    (tmp_path / "first" / "motd").write_text("hello\n")
    recipe = bundles.recipe(
        "again", bundles.PREBUILT, "busybox", "ext4",
        rootfs={"files": [{"path": "/etc/motd", "source": "motd"}], "users": [{"name": "root", "password_hash": HASH}]},
    )  # fmt: skip
    bundle = bundles.build(recipe, tmp_path / "first")
    (tmp_path / "first" / "motd").rename(tmp_path / "first" / "moved")  # the bundle's own copy must do
    with pytest.raises(UserError, match=r"rootfs.users\[0\].password_hash: is a secret") as caught:
        rebuild.plan_of(bundle, None, bundles.CACHE)
    assert "--recipe" in caught.value.hint
    (where := tmp_path / "some where").mkdir()
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-m", "umlbuild.cli", "verify", str(bundle),
         "--rebuild", "--recipe", str(tmp_path / "first" / "again.toml")],
        cwd=where, timeout=600, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "UMLBUILD_CACHE": str(bundles.CACHE), "TZ": "Asia/Tokyo", "LC_ALL": "C",
             "HOME": str(where), "LANG": "de_DE.UTF-8", "USER": "somebody"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "building again: base of bookworm" in done.stdout and "every byte is the same" in done.stdout
