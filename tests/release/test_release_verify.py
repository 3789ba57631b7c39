"""`umlbuild verify`: what it finds in releases and bundles, and that a bundle comes out the same when built again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import bundles
import pytest
import releasekit
import tomli_w

from umlbuild import __version__, digest, rebuild, verify
from umlbuild.cli import run as umlbuild
from umlbuild.errors import StepFailed, UserError
from umlbuild.host import release
from umlbuild.host.release import Wish
from umlbuild.host.store import Store
from umlbuild.specs.bundle import BundleSpec

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


@contextmanager
def _again(tmp_path: Path) -> Iterator[Path]:
    bundle = releasekit.bundle(tmp_path / "again", "two")
    (bundle / ".manifest.json").write_text("the store's")
    yield bundle


@pytest.mark.parametrize(
    ("diffoscope", "says"),
    [
        ("", "  (diffoscope would show more: apt-get install diffoscope)"),
        ("exit 2", "  (diffoscope: exit status 2)"),
        ("exit 1", None),
    ],
)
def test_diffoscope_has_nothing_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diffoscope: str, says: str | None
) -> None:
    recipe = SimpleNamespace(rootfs=SimpleNamespace(run=()))
    spec = BundleSpec(name="m", launcher="", filter="", cmdline="", recipe="", built_with=())
    plan = SimpleNamespace(bundle=SimpleNamespace(spec=spec), recipe=recipe)
    monkeypatch.setattr(rebuild, "plan_of", lambda *_: plan)
    monkeypatch.setattr(rebuild, "rebuilt", lambda *_: _again(tmp_path))
    if diffoscope:
        monkeypatch.setenv("PATH", f"{fake_diffoscope(tmp_path / 'bin', diffoscope)}:{os.environ['PATH']}")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))  # some have it
    with pytest.raises(StepFailed) as caught:
        rebuild.compare(releasekit.bundle(tmp_path / "b"), None, tmp_path, lambda _text: None)
    told, *more = caught.value.message.splitlines()
    assert told == "built again, it is another one: run: differs from byte 15 on"
    assert more[2:] == ([says] if says else [])  # after `then` and `now`


def fake_diffoscope(where: Path, text: str) -> Path:
    """A directory with a diffoscope that does this."""
    where.mkdir()
    (where / "diffoscope").write_text(f"#!/bin/sh\n{text}\n")
    (where / "diffoscope").chmod(0o755)
    return where


HASH = "$y$j9T$abcdefgh$0123456789abcdef"


def verified(bundle: Path, recipe: Path, where: Path, path: str) -> subprocess.CompletedProcess[str]:
    """`umlbuild verify --rebuild`, by somebody else."""
    return subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-m", "umlbuild.cli", "verify", str(bundle),
         "--rebuild", "--recipe", str(recipe)],
        cwd=where, timeout=600, capture_output=True, text=True, check=False,
        env={"PATH": path, "UMLBUILD_CACHE": str(bundles.CACHE), "TZ": "Asia/Tokyo", "LC_ALL": "C",
             "HOME": str(where), "LANG": "de_DE.UTF-8", "USER": "somebody", "PYTHONPATH": str(bundles.PROJECT)},
    )  # fmt: skip


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
    done = verified(bundle, tmp_path / "first" / "again.toml", where, os.environ["PATH"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "building again: base of bookworm" in done.stdout and "every byte is the same" in done.stdout


DIFFOSCOPE = """
[ "$4" = --text ] || exit 2
for n in $(seq 70); do echo "line $n of $6 and $7"; done >"$5"
exit 1"""


@pytest.mark.build
@pytest.mark.timeout(900)
def test_built_again_it_is_another_one(tmp_path: Path) -> None:
    """A kernel with one other byte, said to be of another tool and umlbuild; all sums are right."""
    recipe = bundles.recipe("changed", bundles.PREBUILT, "busybox", "ext4")
    bundle = bundles.build(recipe, tmp_path / "first")
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    file = changed / "linux"
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    mode = file.stat().st_mode
    file.chmod(0o600)
    file.write_bytes(data)
    file.chmod(mode)
    manifest = tomllib.loads((changed / "manifest.toml").read_text())
    manifest["files"]["linux"]["sha256"] = digest.of_file(file)
    manifest["built_with"] = [*manifest.get("built_with", []), "gcc of somebody 1.0"]
    manifest["umlbuild"] = "0.0.1"
    (changed / "manifest.toml").write_text(tomli_w.dumps(manifest))
    path = f"{fake_diffoscope(tmp_path / 'bin', DIFFOSCOPE)}:{os.environ['PATH']}"
    done = verified(changed, tmp_path / "first" / "changed.toml", tmp_path, path)
    assert done.returncode == 1, done.stdout + done.stderr
    told = done.stderr.splitlines()
    assert told[:4] == [
        "umlbuild: built again, it is another one: linux: differs from byte 5000 on",
        "  then: umlbuild 0.0.1",
        "  then: gcc of somebody 1.0",
        f"  now:  umlbuild {__version__}",
    ]
    assert told[4].startswith(f"  | line 1 of {file} and ") and told[4].endswith("/linux")
    assert len(told) == 4 + 60 and told[-1].startswith("  | line 60 ")
