"""Releases: made once, kept, refused, signed, checked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import releasekit

from umlbuild import digest
from umlbuild.errors import StepFailed, UserError
from umlbuild.host import publish, release, signing
from umlbuild.host.release import SUMS, Wish
from umlbuild.host.store import Store

WISH = Wish("m", "1")


def make(tmp_path: Path, text: str = "one", wish: Wish = WISH, said: list[str] | None = None) -> bool:
    bundle = tmp_path / f"bundle-{text}"
    if not bundle.exists():
        releasekit.bundle(bundle, text)
    note = (said if said is not None else []).append
    return release.make(bundle, tmp_path / "dist" / wish.title, wish, Store(tmp_path / "cache"), note)


@pytest.fixture(params=["ssh", "minisign"])
def key(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """(secret key, public key)"""
    return new_key(str(request.param), tmp_path / "key")


def new_key(kind: str, path: Path, algorithm: str = "ed25519") -> tuple[Path, Path]:
    public = path.with_name(f"{path.name}.pub")
    if shutil.which(signing.PROGRAMS["ssh" if kind == "ssh" else "minisign"]) is None:
        pytest.skip(f"no program for keys of {kind}")
    argv = ["ssh-keygen", "-q", "-t", algorithm, "-N", "", "-f", str(path)]
    if kind == "minisign":
        argv = ["minisign", "-G", "-W", "-s", str(path), "-p", str(public)]
    subprocess.run(argv, check=True, timeout=60, capture_output=True)
    return path, public


def test_made_once_kept_and_refused(tmp_path: Path) -> None:
    dist = tmp_path / "dist" / "m-1"
    assert make(tmp_path) is True
    names = ["SHA256SUMS", "m-1.tar.zst", "manifest.toml", "recipe.lock.toml", "recipe.toml"]
    assert sorted(os.listdir(dist)) == names
    assert release.problems_of(dist) == []
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=dist, check=True, timeout=60)
    before = {name: (dist / name).read_bytes() for name in names}
    inode = dist.stat().st_ino
    assert make(tmp_path) is False and dist.stat().st_ino == inode
    said: list[str] = []
    with pytest.raises(StepFailed, match="another release of version 1") as caught:
        make(tmp_path, "two", said=said)
    assert "force=1" in caught.value.hint
    assert said == []  # nothing was packed for it
    assert {name: (dist / name).read_bytes() for name in names} == before
    assert make(tmp_path, "two", replace(WISH, force=True)) is True
    assert (dist / SUMS).read_bytes() != before[SUMS]
    assert sorted(os.listdir(tmp_path / "dist")) == ["m-1"]
    assert list((tmp_path / "cache" / "work").iterdir()) == []


def test_a_damaged_release_is_not_taken_for_a_good_one(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "dist" / "m-1" / "m-1.tar.zst"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(data)
    os.utime(file, ns=times)  # a disk that rots leaves no time
    with pytest.raises(StepFailed, match="another release"):
        make(tmp_path)
    assert make(tmp_path, wish=replace(WISH, force=True)) is True
    assert release.problems_of(file.parent) == []


def test_a_bundle_and_a_release_never_replace_each_other(tmp_path: Path) -> None:
    """hello of version 1, and the bundle of a recipe that is called hello-1."""
    dist = tmp_path / "dist" / "m-1"
    make(tmp_path)
    with pytest.raises(StepFailed, match="not a bundle"):
        publish.publish(releasekit.bundle(tmp_path / "b"), dist)
    assert release.problems_of(dist) == []
    shutil.rmtree(dist)
    publish.publish(releasekit.bundle(tmp_path / "c"), dist)
    with pytest.raises(StepFailed, match="not a release"):
        make(tmp_path, wish=replace(WISH, force=True))
    assert (dist / "run").is_file()


def test_signatures(tmp_path: Path, key: tuple[Path, Path]) -> None:
    secret, public = key
    dist = tmp_path / "dist" / "m-1"
    make(tmp_path)
    with pytest.raises(StepFailed, match="is not there"):
        signing.verify(dist / SUMS, public)
    signed = replace(WISH, key=secret)
    assert make(tmp_path, wish=signed) is True  # the same release, now with a signature
    assert make(tmp_path, wish=signed) is False
    assert make(tmp_path) is False  # and without a key it keeps it
    assert public.name in signing.verify(dist / SUMS, public)
    first = {path.name: path.read_bytes() for path in dist.iterdir()}
    shutil.rmtree(dist)
    make(tmp_path, wish=signed)
    assert {path.name: path.read_bytes() for path in dist.iterdir()} == first
    _, stranger = new_key(signing.kind_of(public), tmp_path / "other")
    with pytest.raises(StepFailed, match="is not a signature of this file"):
        signing.verify(dist / SUMS, stranger)
    (dist / SUMS).write_text((dist / SUMS).read_text().replace("0", "1"))
    with pytest.raises(StepFailed, match="is not a signature of this file"):
        signing.verify(dist / SUMS, public)


def test_a_signature_by_another_key_is_another_release(tmp_path: Path, key: tuple[Path, Path]) -> None:
    secret, public = key
    stranger, other = new_key(signing.kind_of(public), tmp_path / "other")
    sums = tmp_path / "dist" / "m-1" / SUMS
    make(tmp_path, wish=replace(WISH, key=secret))
    before = {path.name: path.read_bytes() for path in sums.parent.iterdir()}
    with pytest.raises(StepFailed, match="another release of version 1 is there; it was left as it is") as caught:
        make(tmp_path, wish=replace(WISH, key=stranger))
    assert "force=1" in caught.value.hint
    assert {path.name: path.read_bytes() for path in sums.parent.iterdir()} == before
    forced = replace(WISH, key=stranger, force=True)
    assert make(tmp_path, wish=forced) is True
    assert other.name in signing.verify(sums, other)
    with pytest.raises(StepFailed, match="is not a signature of this file"):
        signing.verify(sums, public)
    assert make(tmp_path, wish=forced) is False
    signature = sums.with_name(SUMS + signing.SUFFIXES[signing.kind_of(public)])
    signature.write_bytes(before[signature.name][:-9])  # by nobody
    with pytest.raises(StepFailed, match="another release"):
        make(tmp_path, wish=replace(WISH, key=stranger))


def test_only_what_was_packed_here_is_signed(tmp_path: Path, key: tuple[Path, Path]) -> None:
    """An archive of somebody, with sums to it."""
    dist = tmp_path / "dist" / "m-1"
    make(tmp_path)
    good = (dist / "m-1.tar.zst").read_bytes()
    (dist / "m-1.tar.zst").chmod(0o644)
    (dist / "m-1.tar.zst").write_bytes(good[:-8] + b"8 others")
    rows = (f"{digest.of_file(dist / name)}  {name}\n" for name in sorted(release.sums_of(dist)))
    (dist / SUMS).write_text("".join(rows))
    assert release.problems_of(dist) == []
    signed = replace(WISH, key=key[0])
    with pytest.raises(StepFailed, match="another release"):
        make(tmp_path, wish=signed)
    assert not list(dist.glob(f"{SUMS}.*"))
    assert make(tmp_path, wish=replace(signed, force=True)) is True
    assert (dist / "m-1.tar.zst").read_bytes() == good


def test_signatures_that_differ_each_time_are_kept(tmp_path: Path) -> None:
    """ECDSA's; the bytes do not tell whose they are."""
    secret, _ = new_key("ssh", tmp_path / "key", "ecdsa")
    wish = replace(WISH, key=secret)
    assert [make(tmp_path, wish=wish) for _ in range(2)] == [True, False]
    assert signing.is_by(tmp_path / "dist" / "m-1" / SUMS, tmp_path / "key.pub")


def test_both_kinds_of_signature_stand_side_by_side(tmp_path: Path) -> None:
    dist = tmp_path / "dist" / "m-1"
    keys = [new_key(kind, tmp_path / kind) for kind in ("ssh", "minisign")]
    for secret, _ in keys:
        assert make(tmp_path, wish=replace(WISH, key=secret)) is True
    for _, public in keys:
        signing.verify(dist / SUMS, public)


def test_allowed_signers(tmp_path: Path) -> None:
    secret, public = new_key("ssh", tmp_path / "key")
    make(tmp_path, wish=replace(WISH, key=secret))
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ann@example.org {public.read_text()}")
    assert signing.verify(tmp_path / "dist" / "m-1" / SUMS, allowed) == "ann@example.org"
    allowed.write_text(f'ann@example.org namespaces="git" {public.read_text()}')
    with pytest.raises(StepFailed, match="is not a signature"):
        signing.verify(tmp_path / "dist" / "m-1" / SUMS, allowed)


def test_a_key_with_a_passphrase(tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "key")], check=True, timeout=60
    )
    with pytest.raises(StepFailed, match="signing with") as caught:
        make(tmp_path, wish=replace(WISH, key=tmp_path / "key"))
    assert "ssh-add" in caught.value.hint
    assert not (tmp_path / "dist" / "m-1").exists()


def test_a_key_with_a_passphrase_in_ssh_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)], check=True, timeout=60)
    (tmp_path / "ask").write_text("#!/bin/sh\necho secret\n")
    (tmp_path / "ask").chmod(0o755)
    with tempfile.TemporaryDirectory() as short:  # a socket's path has an end
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", f"{short}/agent"], stdout=subprocess.PIPE, text=True)
        try:
            assert agent.stdout is not None and agent.stdout.readline()  # it listens
            monkeypatch.setenv("SSH_AUTH_SOCK", f"{short}/agent")
            env = {**os.environ, "SSH_ASKPASS": str(tmp_path / "ask"), "SSH_ASKPASS_REQUIRE": "force"}
            subprocess.run(["ssh-add", "-q", str(key)], env=env, check=True, timeout=60)
            for given in (key, key.with_name("key.pub")):
                signing.check(given)
                assert make(tmp_path, wish=replace(WISH, key=given)) is (given == key)
        finally:
            agent.terminate()
            agent.communicate(timeout=60)


def released(project: Path, key: Path) -> subprocess.CompletedProcess[str]:
    (project / "hello.toml").write_text("no recipe, which would be told next\n")
    return subprocess.run(
        [sys.executable, "-m", "umlbuild.cli", "release", "hello.toml", f"key={key}"],
        cwd=project, env={**os.environ, "UMLBUILD_CACHE": str(project / "cache")}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_key_that_cannot_sign_is_refused_before_any_work(tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "key")], check=True, timeout=60
    )
    done = released(tmp_path, tmp_path / "key")
    assert done.returncode == 2
    (told, fix) = done.stderr.splitlines()
    assert told.startswith(f"signing with {tmp_path / 'key'}: ") and "passphrase" in told
    assert "ssh-keygen" not in told and "umlbuild-sign" not in told  # not the command, nor our scratch
    assert fix.startswith("  fix: ") and "ssh-add" in fix


def test_a_key_that_can_sign_goes_on_to_the_recipe(tmp_path: Path, key: tuple[Path, Path]) -> None:
    done = released(tmp_path, key[0])
    assert done.returncode == 2 and "hello.toml" in done.stderr and "signing" not in done.stderr


def test_a_key_that_others_may_read(tmp_path: Path) -> None:
    secret, _ = new_key("ssh", tmp_path / "key")
    secret.chmod(0o644)
    with pytest.raises(UserError, match="This private key will be ignored") as caught:
        signing.check(secret)
    assert caught.value.hint == f"chmod 600 {secret}"


def test_the_public_key_does_not_sign_and_the_secret_one_does_not_verify(
    tmp_path: Path, key: tuple[Path, Path]
) -> None:
    secret, public = key
    make(tmp_path, wish=replace(WISH, key=secret))
    sums = tmp_path / "dist" / "m-1" / SUMS
    with pytest.raises(UserError, match=r"is a secret key, and .* with the public one") as caught:
        signing.verify(sums, secret)
    assert caught.value.hint == f"give {public}"
    public = public.rename(tmp_path / "elsewhere.pub")
    with pytest.raises(UserError, match="is a secret key") as caught:
        signing.verify(sums, secret)
    assert caught.value.hint == "give its .pub file"
    signing.verify(sums, public)
    with pytest.raises(UserError, match="signing with"):
        signing.check(public)


def test_what_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("hello\n")
    with pytest.raises(UserError, match="is neither a key of ssh nor one of minisign"):
        signing.kind_of(tmp_path / "note")
    with pytest.raises(UserError, match="No such file"):
        signing.kind_of(tmp_path / "nothing")


@pytest.mark.parametrize("version", ["1.2", "0", "2024-05-01", "1.0~rc1+x"])
def test_versions(version: str) -> None:
    release.check_version(version)


@pytest.mark.parametrize("version", ["", ".", "../x", "a b", "-1", "1/2", "x" * 65, "1\n"])
def test_no_versions(version: str) -> None:
    with pytest.raises(UserError, match="is no version"):
        release.check_version(version)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda dist: (dist / "recipe.toml").unlink(), "recipe.toml: is not there"),
        (lambda dist: (dist / "recipe.toml").write_text("x"), "recipe.toml: its sha256 is not"),
        (lambda dist: (dist / "more").write_text("x"), "more: is not in SHA256SUMS"),
    ],
)
def test_problems(tmp_path: Path, change: object, says: str) -> None:
    make(tmp_path)
    assert callable(change)
    change(tmp_path / "dist" / "m-1")
    (problem,) = release.problems_of(tmp_path / "dist" / "m-1")
    assert problem.startswith(says)
