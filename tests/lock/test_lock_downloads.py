"""Downloads: resumed by a later build, looked for at several places, refused offline, never two at once."""

from __future__ import annotations

import contextlib
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import webkit
from rootfskit import make_deb, pin_of

from umlbuild import digest
from umlbuild.errors import FetchError
from umlbuild.host import fetch, mirrors, offline
from umlbuild.host.downloads import Downloads, downloads_of
from umlbuild.host.rootless import owners
from umlbuild.specs.packages import DebPin


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, DebPin]:
    site = tmp_path / "site"
    return site, pin_of(make_deb(site, "tool", "1:2.0"), site, "tool", "1:2.0")


@pytest.mark.parametrize("left", [b"", b"same", b"other"])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_an_earlier_build_left_is_used_if_it_is_of_this_file(tmp_path: Path, left: bytes, ranges: bool) -> None:
    content = os.urandom(600_000)
    (tmp_path / "file").write_bytes(content)
    part = tmp_path / "kept/.whole.part"
    part.parent.mkdir()
    if left:
        part.write_bytes(content[:400_000] if left == b"same" else bytes(400_000))
    with webkit.serving(tmp_path, ranges=ranges) as server:
        fetch.download(f"{server.url}/file", tmp_path / "kept/whole", sha256=digest.of_bytes(content))
    assert (tmp_path / "kept/whole").read_bytes() == content
    assert list(part.parent.iterdir()) == [tmp_path / "kept/whole"]
    assert server.ranges[0] == ("bytes=400000-" if left else None)
    assert len(server.ranges) == (2 if left == b"other" and ranges else 1 if left != b"other" else len(server.ranges))


def test_a_broken_download_stays_for_the_next_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(900_000)
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    dest = tmp_path / "kept/whole"
    with webkit.serving(tmp_path, cut_once_at=600_000) as server:
        with pytest.raises(FetchError, match=r"the connection broke|Connection broken|IncompleteRead"):
            fetch.download(f"{server.url}/file", dest, sha256=digest.of_bytes(content))
        assert not dest.exists()
        fetch.download(f"{server.url}/file", dest, sha256=digest.of_bytes(content))
    assert webkit.resumed_near(server.ranges, 600_000)
    assert dest.read_bytes() == content


def test_a_server_that_drips_is_not_waited_for(tmp_path: Path) -> None:
    """Each of its bytes comes in time, the file would in half an hour."""
    (tmp_path / "file").write_bytes(bytes(100_000))
    began = time.monotonic()
    with webkit.serving(tmp_path, drips=True) as server:
        with pytest.raises(FetchError, match="took too long"):
            fetch.download(f"{server.url}/file", tmp_path / "kept", sha256="0" * 64, timeout_s=1)
        with pytest.raises(FetchError, match="took longer than 1 s"):
            fetch.ask("GET", f"{server.url}/file", timeout_s=1)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("limit", [599_999, 600_000])
def test_an_answer_that_breaks_or_is_too_long(tmp_path: Path, limit: int) -> None:
    (tmp_path / "file").write_bytes(bytes(600_000))
    with webkit.serving(tmp_path, cut_once_at=300_000) as server:
        with pytest.raises(FetchError, match=r"bytes are missing|IncompleteRead|broke"):
            fetch.ask("GET", f"{server.url}/file")
        if limit < 600_000:
            with pytest.raises(FetchError, match="is longer than 599999 bytes"):
                fetch.ask("GET", f"{server.url}/file", limit=limit)
        else:
            assert fetch.ask("GET", f"{server.url}/file", limit=limit).body == bytes(600_000)


def test_two_builds_fetch_a_file_once(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    with webkit.serving(tmp_path) as server:
        url, dest, sha256 = f"{server.url}/file", tmp_path / "kept/whole", digest.of_bytes(content)
        threads = [threading.Thread(target=fetch.download, args=(url, dest), kwargs={"sha256": sha256})
                   for _ in range(6)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert server.ranges == [None]
    assert [path.name for path in dest.parent.iterdir()] == ["whole"]


def test_the_next_mirrors_are_asked_in_order(
    tmp_path: Path, package: tuple[Path, DebPin], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, pin = package
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)  # of the one that is not there
    (tmp_path / "empty").mkdir()
    with webkit.serving(tmp_path / "empty") as empty, webkit.serving(site) as full:
        bases = f"{empty.url}/ http://127.0.0.1:9/ {full.url}/"
        downloads = Downloads(tmp_path / "kept")
        assert downloads.package(pin, {"debian": bases}).read_bytes() == (site / pin.path).read_bytes()
        assert len(empty.ranges) == len(full.ranges) == 1
        # It is kept: nobody is asked again.
        downloads.package(pin, {"debian": bases})
        assert len(empty.ranges) == 1


def test_a_mirror_in_a_directory(tmp_path: Path, package: tuple[Path, DebPin], monkeypatch: pytest.MonkeyPatch) -> None:
    site, pin = package
    monkeypatch.setenv(offline.VARIABLE, "0")
    found = Downloads(tmp_path / "kept").package(pin, {"debian": f"file://{tmp_path}/none/ file://{site}/"})
    assert digest.of_file(found) == pin.sha256


def test_a_snapshot_archive_comes_last(tmp_path: Path, package: tuple[Path, DebPin]) -> None:
    site, pin = package
    (tmp_path / "empty").mkdir()
    old = tmp_path / "snapshots/debian/20261120T081500Z"
    old.parent.mkdir(parents=True)
    site.rename(old)
    moments = {"debian": ["2026-11-20T08:15:00Z"]}
    with webkit.serving(tmp_path / "empty") as empty, webkit.serving(tmp_path / "snapshots") as snapshots:
        found = mirrors.with_snapshots({"debian": f"{empty.url}/"}, moments, {mirrors.SNAPSHOT: snapshots.url})
        assert found == {
            "debian": f"{empty.url}/ {snapshots.url}/debian/20261120T201500Z/ {snapshots.url}/debian/20261120T081500Z/"
        }
        named = {str(name): urls for name, urls in found.items()}
        assert digest.of_file(Downloads(tmp_path / "kept").package(pin, named)) == pin.sha256
        assert len(empty.ranges) == 1 and len(snapshots.ranges) == 2


def test_a_package_that_nobody_has(tmp_path: Path, package: tuple[Path, DebPin]) -> None:
    _, pin = package
    (tmp_path / "empty").mkdir()
    with (
        webkit.serving(tmp_path / "empty") as one, webkit.serving(tmp_path / "empty") as two,
        pytest.raises(FetchError, match=r"tool 1:2\.0: the mirror does not have it any more") as caught,
    ):  # fmt: skip
        Downloads(tmp_path / "kept").package(pin, {"debian": f"{one.url}/ {two.url}/"})
    assert one.url in caught.value.message and two.url in caught.value.message
    assert "umlbuild lock RECIPE --update tool" in caught.value.hint and "UMLBUILD_SNAPSHOT" in caught.value.hint


@contextlib.contextmanager
def mute() -> Iterator[tuple[str, list[int]]]:
    """A host that takes connections and says nothing: its URL, and an item for each connection."""
    asked: list[int] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_address[1]}", asked
        finally:
            listener.shutdown()
            thread.join(30)


def test_a_dead_host_is_asked_once_and_that_is_told(
    tmp_path: Path, package: tuple[Path, DebPin], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, pin = package
    other = pin_of(make_deb(site, "more", "1.0"), site, "more", "1.0")
    monkeypatch.setattr(fetch, "_pause", lambda _url, _seconds: None)
    told: list[str] = []
    with webkit.serving(site) as full, mute() as (dead, asked):
        bases = f"{dead}/one/ {dead}/two/ {full.url}/ {dead}/three/"
        downloads = downloads_of(tmp_path / "kept")
        downloads.package(pin, {"debian": bases}, note=told.append)
        assert len(asked) == fetch.ATTEMPTS
        # Other steps of this build know it, too.
        downloads_of(tmp_path / "kept").package(other, {"debian": bases}, note=told.append)
        assert len(asked) == fetch.ATTEMPTS and len(full.ranges) == 2
    host = dead.removeprefix("http://")
    assert told == [*(f"asking {host} again, {n} of 5" for n in range(2, 6)),
                    f"{host} does not answer, it is not asked any more"]  # fmt: skip


def test_a_host_that_breaks_off_is_asked_last(
    tmp_path: Path, package: tuple[Path, DebPin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has answered, and may have what the others have not."""
    site, pin = package
    other = pin_of(make_deb(site, "more", "1.0"), site, "more", "1.0")
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    (tmp_path / "one").mkdir()
    (tmp_path / "one/pool").symlink_to(site / "pool")
    with webkit.serving(site, cut_once_at=100) as frail, webkit.serving(tmp_path / "one") as good:
        downloads, bases = Downloads(tmp_path / "kept"), f"{frail.url}/ {good.url}/"
        downloads.package(pin, {"debian": bases})
        assert (len(frail.ranges), len(good.ranges)) == (1, 1)
        (tmp_path / "one/pool").unlink()
        downloads.package(other, {"debian": bases})
        assert (len(frail.ranges), len(good.ranges)) == (2, 2)


def test_gone_here_and_no_answer_there(
    tmp_path: Path, package: tuple[Path, DebPin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which package it is, and both ways out."""
    _, pin = package
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    (tmp_path / "empty").mkdir()
    with webkit.serving(tmp_path / "empty") as empty, mute() as (dead, _):
        downloads = Downloads(tmp_path / "kept")
        bases = f"{empty.url}/ {dead}/one/ {dead}/two/ {dead}/three/"
        with pytest.raises(FetchError, match=r"tool 1:2\.0: one place does not have it any more") as caught:
            downloads.package(pin, {"debian": bases})
        assert empty.url in caught.value.message and f"{dead}/one/" in caught.value.message
        assert len(caught.value.message.splitlines()) == 4, "a dead host is one row, and one that it is"
        assert "umlbuild lock RECIPE --update tool" in caught.value.hint and "the network" in caught.value.hint
        with pytest.raises(FetchError, match=r"^tool 1:2\.0: .* did not answer before") as caught:
            downloads.package(pin, {"debian": f"{dead}/"})
        assert "umlbuild lock" not in caught.value.hint and "the network" in caught.value.hint


def test_offline_the_gate_refuses(
    tmp_path: Path, package: tuple[Path, DebPin], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, pin = package
    downloads = Downloads(tmp_path / "kept")
    with webkit.serving(site) as server:
        with monkeypatch.context() as patch:
            patch.setenv(offline.VARIABLE, "1")
            with pytest.raises(FetchError, match=r"tool 1:2\.0 is not among the downloads"):
                downloads.package(pin, {"debian": f"{server.url}/"})
            with pytest.raises(FetchError, match="this build is offline"):
                fetch.download(f"{server.url}/{pin.path}", tmp_path / "x", sha256=pin.sha256)
        assert server.ranges == []
        downloads.package(pin, {"debian": f"{server.url}/"})
        monkeypatch.setenv(offline.VARIABLE, "1")
        downloads.package(pin, {})


@pytest.mark.skipif(owners().missing is not None, reason="no namespaces here")
def test_the_bootstrap_has_a_network_of_its_own(tmp_path: Path) -> None:
    from umlbuild.host import process

    text = process.output([*owners().prefix(), "cat", "/proc/net/dev"])
    assert [line.split(":")[0].strip() for line in text.splitlines()[2:]] == ["lo"]
