"""apt, isolated, against small signed archives on this machine: resolving, pins, signatures, errors."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rootfskit import make_deb, served

from umlbuild.errors import FetchError, HostError, LockError
from umlbuild.host import mirrors as mirrors_module
from umlbuild.host.apt import Apt, compare_versions, parse_uris
from umlbuild.host.mirrors import keyring, mirrors, parse_targets

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("apt-get", "dpkg-deb", "gpg", "dpkg-scanpackages")),
    reason="needs apt, dpkg-dev and gpg",
)

HOST = "https://mirror.example"


@pytest.fixture(scope="module")
def gnupg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of gpg with two keys: `good` and `evil`."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    try:
        for name in ("good", "evil"):
            gpg(home, "--quick-gen-key", f"{name} <{name}@mail.example>", "ed25519", "sign", "never")
            gpg(home, "--output", str(home / f"{name}.gpg"), "--export", name)
        yield home
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, timeout=30)


def gpg(home: Path, *args: str) -> None:
    argv = ["gpg", "--homedir", str(home), "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*argv, *args], check=True, capture_output=True, timeout=120)


def publish(site: Path, suite: str, gnupg: Path, *, key: str = "good", release: str = "oldstable") -> None:
    """Write dists/<suite> of all packages in the pool, signed."""
    dist = site / "dists" / suite
    index = dist / "main/binary-amd64/Packages"
    index.parent.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["dpkg-scanpackages", "--multiversion", "pool"], cwd=site, check=True, capture_output=True, timeout=60
    ).stdout  # fmt: skip
    index.write_bytes(listed)
    text = (
        f"Origin: Debian\nSuite: {release}\nCodename: {suite}\nDate: Sat, 01 Jan 2022 00:00:00 UTC\n"
        f"Architectures: amd64\nComponents: main\nSHA256:\n"
        f" {hashlib.sha256(listed).hexdigest()} {len(listed)} main/binary-amd64/Packages\n"
    )
    (dist / "Release").write_text(text)
    gpg(gnupg, "-u", key, "--output", str(dist / "InRelease"), "--clearsign", str(dist / "Release"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, gnupg: Path) -> Path:
    site = tmp_path_factory.mktemp("site")
    make_deb(site, "base", Essential="yes")
    make_deb(site, "prio", Priority="required")
    make_deb(site, "apt")
    make_deb(site, "tool", "1:2.0~rc1", depends="libtool9 | other")
    make_deb(site, "libtool9", "1.0")
    make_deb(site, "libtool9", "1.10")
    make_deb(site, "extra", Recommends="tool")
    for version in ("6.1", "6.12", "6.9"):
        make_deb(site, f"linux-source-{version}", f"{version}.3-1")
    for name in ("stone", "stone-updates", "stone-security"):
        publish(site, name, gnupg)
    publish(site, "sid", gnupg, release="unstable")
    publish(site, "next", gnupg, release="testing")
    publish(site, "lonely", gnupg)
    publish(site, "forged", gnupg, key="evil")
    return site


@pytest.fixture(scope="module")
def url(archive: Path) -> Iterator[str]:
    with served(archive) as base:
        yield base


@pytest.fixture
def apt(url: str, gnupg: Path, tmp_path: Path) -> Apt:
    found = {"debian": url, "security": url}
    return Apt(cache=tmp_path, mirrors=found, keyring=gnupg / "good.gpg", architecture="amd64")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variant", "packages", "names"),
    [
        ("essential", [], ["base"]),
        ("required", [], ["base", "prio"]),
        ("minbase", [], ["apt", "base", "prio"]),
        ("minbase", ["tool"], ["apt", "base", "libtool9", "prio", "tool"]),
        ("minbase", ["extra"], ["apt", "base", "extra", "prio"]),
    ],
)
def test_resolve(apt: Apt, variant: str, packages: list[str], names: list[str]) -> None:
    assert [pin.name for pin in apt.resolve("stone", variant, packages)] == names


def test_pins_say_all_that_fetching_needs(apt: Apt, archive: Path) -> None:
    pins = {pin.name: pin for pin in apt.closure("stone", ["tool"])}
    assert set(pins) == {"tool", "libtool9"}
    tool = pins["tool"]
    data = (archive / tool.path).read_bytes()
    assert (tool.version, tool.architecture, tool.archive) == ("1:2.0~rc1", "amd64", "debian")
    assert (tool.size, tool.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert tool.path == "pool/main/t/tool/tool_2.0~rc1_amd64.deb"
    assert pins["libtool9"].version == "1.10", "dpkg's order, not that of strings"


def test_pin_takes_no_dependencies_and_any_version(apt: Apt) -> None:
    assert apt.pin("stone", "tool").version == "1:2.0~rc1"
    assert apt.pin("stone", "libtool9", "1.0").version == "1.0"
    with pytest.raises(LockError, match="no version 3") as caught:
        apt.pin("stone", "libtool9", "3")
    assert caught.value.hint == "it has 1.10, 1.0"


def test_newest(apt: Apt) -> None:
    assert apt.newest("stone", r"linux-source-[0-9.]+") == "linux-source-6.12"
    with pytest.raises(LockError, match="no package is called"):
        apt.newest("stone", "nothing-like-it")


def test_unknown_packages_are_named_with_the_nearest(apt: Apt) -> None:
    with pytest.raises(LockError) as caught:
        apt.resolve("stone", "minbase", ["tol", "prio", "libtool", "extra-"])
    text = str(caught.value)
    assert "tol: stone has no such package; did you mean tool" in text
    assert "libtool: stone has no such package; did you mean libtool9" in text
    assert "extra-: stone has no such package" in text, "apt would read it as: remove extra"
    assert "prio:" not in text


def test_a_dependency_that_nothing_meets_is_shown(apt: Apt, archive: Path, gnupg: Path) -> None:
    other = archive.parent / "broken"
    make_deb(other, "needy", depends="nowhere (>= 3)")
    publish(other, "sid", gnupg, release="unstable")
    with served(other) as base:
        broken = Apt(cache=apt.cache, mirrors={"debian": base}, keyring=apt.keyring, architecture="amd64")
        with pytest.raises(LockError, match="nowhere"):
            broken.closure("sid", ["needy"])


@pytest.mark.parametrize("suite", ["sid", "next"])
def test_rolling_suites_need_no_updates(apt: Apt, suite: str) -> None:
    assert [pin.name for pin in apt.resolve(suite, "essential")] == ["base"]


@pytest.mark.parametrize(
    ("suite", "error", "says"),
    [
        ("missing", LockError, "no such suite"),
        ("lonely", LockError, "lacks one of lonely-updates, lonely-security"),
        ("forged", FetchError, "signature does not verify"),
        ("../etc", LockError, "no name of a suite"),
    ],
)
def test_suites_that_cannot_be_used(apt: Apt, suite: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        apt.resolve(suite, "minbase")


def test_a_changed_index_is_refused(apt: Apt, archive: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(archive, site)
    index = site / "dists/sid/main/binary-amd64/Packages"
    index.write_bytes(index.read_bytes().replace(b"Essential: yes", b"Essential: no "))
    with served(site) as base:
        changed = Apt(cache=apt.cache, mirrors={"debian": base}, keyring=apt.keyring, architecture="amd64")
        with pytest.raises(FetchError):
            changed.resolve("sid", "essential")


def test_an_unreachable_mirror_is_named(apt: Apt) -> None:
    gone = Apt(
        cache=apt.cache, mirrors={"debian": "http://127.0.0.1:9/debian/"}, keyring=apt.keyring, architecture="amd64"
    )
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9") as caught:
        gone.resolve("sid", "minbase")
    assert "UMLBUILD_MIRROR" in caught.value.hint


def test_lists_are_kept_and_shared_by_concurrent_resolves(apt: Apt, archive: Path) -> None:
    results: list[int] = []

    def resolve() -> None:
        own = Apt(cache=apt.cache, mirrors=apt.mirrors, keyring=apt.keyring, architecture="amd64")
        results.append(len(own.resolve("stone", "minbase")))

    threads = [threading.Thread(target=resolve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [3] * 4
    lists = list(apt.cache.glob("apt/stone-*/state/lists/*_Packages"))
    assert len(lists) == 3


def test_the_hosts_apt_is_left_alone(apt: Apt) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("/var/lib/apt/lists").glob("*")}
    apt.resolve("stone", "minbase")
    assert {path: path.stat().st_mtime_ns for path in Path("/var/lib/apt/lists").glob("*")} == before
    config = next(apt.cache.glob("apt/*/apt.conf")).read_text()
    assert "Invoke" not in config
    assert "AllowInsecure" not in config


@pytest.mark.parametrize(
    ("a", "b", "sign"),
    [("1.0", "1.10", -1), ("1.0~rc1", "1.0", -1), ("1:0.1", "9", 1), ("2", "2", 0), ("1.0-1", "1.0-1+b1", -1)],
)
def test_versions_are_compared_as_dpkg_does(a: str, b: str, sign: int) -> None:
    assert compare_versions(a, b) == sign


DEBIAN = {"debian": f"{HOST}/debian/"}
TARGETS = f"""\
{HOST}/apt other-suite Other
{HOST}/debian/ bookworm-updates Debian
{HOST}/debian/ bookworm Debian
{HOST}/debian-security/ bookworm-security Debian
cdrom://x bookworm Debian
"""


def test_the_hosts_mirrors() -> None:
    assert parse_targets(TARGETS) == {"debian": f"{HOST}/debian/", "security": f"{HOST}/debian-security/"}
    never_updated = TARGETS.replace(" Debian", " $(ORIGIN)").replace(" Other", " $(ORIGIN)")
    assert parse_targets(never_updated) == parse_targets(TARGETS)


@pytest.mark.parametrize(
    ("explicit", "env", "host", "expected"),
    [
        (None, {}, TARGETS, {"debian": f"{HOST}/debian/", "security": f"{HOST}/debian-security/"}),
        (f"{HOST}/d/debian", {}, "", {"debian": f"{HOST}/d/debian/", "security": f"{HOST}/d/debian-security/"}),
        (f"{HOST}/odd", {}, "", {"debian": f"{HOST}/odd/"}),
        (None, {"UMLBUILD_MIRROR": f"{HOST}/e/"}, "", {"debian": f"{HOST}/e/"}),
        (f"{HOST}/r", {"UMLBUILD_MIRROR": f"{HOST}/e"}, "", {"debian": f"{HOST}/r/"}),
        (None, {"UMLBUILD_SECURITY_MIRROR": "none"}, TARGETS, {"debian": f"{HOST}/debian/"}),
        (
            f"{HOST}/r",
            {"UMLBUILD_SECURITY_MIRROR": f"{HOST}/s"},
            "",
            {"debian": f"{HOST}/r/", "security": f"{HOST}/s/"},
        ),
    ],
)
def test_mirrors(
    monkeypatch: pytest.MonkeyPatch, explicit: str | None, env: dict[str, str], host: str, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(mirrors_module, "_of_host", lambda _cache: parse_targets(host))
    assert mirrors(explicit, env) == expected


@pytest.mark.parametrize("disk", ["has room", "is full"])
def test_apts_cache_of_the_hosts_lists_is_in_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str) -> None:
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n'
        + ('case $* in *Dir::Cache=*) exit 100 ;; esac\n' if disk == "is full" else "")
        + f"echo {HOST}/mirror bookworm Debian\n"
    )
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}:{os.environ['PATH']}")
    assert mirrors(None, {"UMLBUILD_SECURITY_MIRROR": "none"}, tmp_path / "cache") == {"debian": f"{HOST}/mirror/"}
    asked = (tmp_path / "asked").read_text().splitlines()
    assert f"--option=Dir::Cache={tmp_path}/cache/apt/host-lists" in asked[0]
    assert len(asked) == (1 if disk == "has room" else 2) and ("Dir::Cache" in asked[-1]) is (disk == "has room")


def test_no_mirror_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors_module, "_of_host", lambda _cache: {})
    with pytest.raises(HostError) as caught:
        mirrors(None, {})
    assert "UMLBUILD_MIRROR" in caught.value.hint


def test_a_missing_keyring_is_said(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="keyring") as caught:
        keyring({"UMLBUILD_KEYRING": str(tmp_path / "none.gpg")})
    assert "debian-archive-keyring" in caught.value.hint
    assert keyring({"UMLBUILD_KEYRING": os.fspath(Path(__file__))}) == Path(__file__)


def test_a_pin_without_sha256_is_refused() -> None:
    line = f"'{HOST}/debian/pool/a_1_amd64.deb' a_1_amd64.deb 5 MD5Sum:{'0' * 32}"
    with pytest.raises(LockError, match="no sha256"):
        parse_uris(line, {"debian": f"{HOST}/debian/"})
