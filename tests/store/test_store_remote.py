"""Remote stores of every kind, against real servers on loopback: what is pulled, refused, survived."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from umlbuild import digest
from umlbuild.errors import HostError
from umlbuild.host.remote import RemoteStore, remote_store
from umlbuild.host.remotes.s3 import Credentials, signed
from umlbuild.host.store import MANIFEST, Store

STAGE, KEY = "kernel", "a" * 64


class Files(http.server.SimpleHTTPRequestHandler):
    """Python's file server, and PUT."""

    def do_PUT(self) -> None:
        path = Path(self.translate_path(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        self.server.asked.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]


@contextlib.contextmanager
def web(directory: Path) -> Iterator[tuple[str, list[str]]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Files(*args, directory=str(directory)))
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/store", server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture(scope="module")
def s3() -> Iterator[Mapping[str, str]]:
    pytest.importorskip("moto", reason="moto (an S3 server) is not installed")
    code = (
        "import sys, time, requests\nfrom moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)\nserver.start()\n"
        "host, port = server.get_host_and_port()\n"
        "requests.put(f'http://127.0.0.1:{port}/bucket', timeout=20).raise_for_status()\n"
        "print(port, flush=True)\nsys.stdin.read()"
    )
    env = {"PATH": "/usr/bin:/bin", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    killer = threading.Timer(60, child.kill)
    killer.start()
    try:
        assert child.stdout is not None
        port = child.stdout.readline().strip()
        assert port, "the S3 server did not start"
        killer.cancel()
        yield {**env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    finally:
        killer.cancel()
        child.kill()
        child.communicate()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of Debian's docker-registry. Not installed: its package starts a service that everybody can reach."""
    place = tmp_path_factory.mktemp("registry")
    get = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "docker-registry"]
    subprocess.run(get, cwd=place, check=True, timeout=300, stdin=subprocess.DEVNULL)
    (package,) = place.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(place / "root")], check=True, timeout=60)
    (program,) = (place / "root/usr/bin").iterdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "version": 0.1, "log": {"level": "error"}, "http": {"addr": address},
        "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
    }  # fmt: skip
    (place / "config.yml").write_text(json.dumps(settings))  # which YAML includes
    child = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", str(program), "serve", str(place / "config.yml")],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/v2/", timeout=5):
                break
            assert child.poll() is None and time.monotonic() < end, "the registry did not start"
            time.sleep(0.1)
        yield address
    finally:
        child.kill()
        child.wait(10)


class Doorman(http.server.BaseHTTPRequestHandler):
    """Wants a token before it sends one on to the real registry, and has tokens for who knows the password."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        given = self.headers.get("Authorization", "")
        here = f"http://127.0.0.1:{self.server.server_address[1]}"  # type: ignore[index]
        self.server.asked.append(f"{self.command} {self.path} {given[:6]}")  # type: ignore[attr-defined]
        body = b""
        if self.path.startswith("/token"):
            known = given == f"Basic {base64.b64encode(b'somebody:secret').decode()}"
            self.send_response(200 if known else 401)
            body = b'{"token": "t0ken"}' if known else b'{"errors": [{"message": "wrong password"}]}'
        elif given != "Bearer t0ken":
            self.send_response(401)
            asked = f'Bearer realm="{here}/token",service="doorman",scope="repository:team/cache:pull,push"'
            self.send_header("WWW-Authenticate", asked)
        else:
            self.send_response(307)
            self.send_header("Location", f"http://{self.server.behind}{self.path}")  # type: ignore[attr-defined]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("password", ["secret", "guess"])
def test_a_registry_that_wants_tokens(
    password: str, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    known = password == "secret"
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login somebody password {password}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Doorman)
    server.asked, server.behind = [], registry  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        environ = {
            "UMLBUILD_REMOTE": f"oci://127.0.0.1:{server.server_address[1]}/team/cache",
            "UMLBUILD_REMOTE_TRUSTED": "1", "UMLBUILD_REMOTE_PUSH": "1",
        }  # fmt: skip
        assert made(environ).push(filled(tmp_path / "theirs"), STAGE, KEY) is known
        assert made(environ).pull(Store(tmp_path / "ours"), STAGE, KEY) is known
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
    assert ("the registry answers 401 (wrong password)" in capsys.readouterr().err) is not known
    assert [line for line in server.asked if line.startswith("GET /token")]  # type: ignore[attr-defined]


@pytest.fixture(params=["directory", "http", "s3", "oci"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that names an empty remote."""
    trusted = {"UMLBUILD_REMOTE_TRUSTED": "1", "UMLBUILD_REMOTE_PUSH": "1"}
    (tmp_path / "remote").mkdir()
    if request.param == "directory":
        yield {"UMLBUILD_REMOTE": str(tmp_path / "remote"), **trusted}
    elif request.param == "http":
        with web(tmp_path / "remote") as (url, _):
            yield {"UMLBUILD_REMOTE": url, **trusted}
    elif request.param == "oci":
        name = f"oci://{request.getfixturevalue('registry')}/team/{tmp_path.name.replace('_', '-')}"
        yield {"UMLBUILD_REMOTE": name, **trusted}
    else:
        name = f"s3://bucket/{tmp_path.name}"
        yield {**request.getfixturevalue("s3"), "UMLBUILD_REMOTE": name, **trusted}


def made(environ: Mapping[str, str]) -> RemoteStore:
    remote = remote_store(environ)
    assert remote is not None
    return remote


def filled(root: Path) -> Store:
    """A store with one entry: a sparse image, a link, a directory, a program."""
    digest.forget_files()  # of tests before, whose files are gone
    store = Store(root)
    with store.filling(STAGE, KEY) as out:
        with (out / "root.img").open("wb") as file:
            file.seek(64 << 20)
            file.write(os.urandom(1 << 16))
        os.utime(out / "root.img", (1_600_000_000, 1_600_000_000))
        (out / "bin").mkdir()
        (out / "bin/linux").write_text("#!/bin/sh\n")
        (out / "bin/linux").chmod(0o755)
        (out / "link").symlink_to("bin/linux")
    return store


def test_pushed_and_pulled(settings: dict[str, str], tmp_path: Path) -> None:
    theirs, ours = filled(tmp_path / "theirs"), Store(tmp_path / "ours")
    assert not made(settings).pull(ours, STAGE, KEY)
    assert made(settings).push(theirs, STAGE, KEY)
    remote = made(settings)
    assert remote.pull(ours, STAGE, KEY)
    one, other = theirs.path(STAGE, KEY), ours.path(STAGE, KEY)
    assert (one / MANIFEST).read_bytes() == (other / MANIFEST).read_bytes()
    assert ours.verify(STAGE, KEY) == []
    assert (other / "root.img").stat().st_blocks * 512 < 1 << 20, "not sparse any more"
    assert (other / "root.img").stat().st_mtime == 1_600_000_000
    assert (other / "bin/linux").stat().st_mode & 0o777 == 0o755
    assert os.readlink(other / "link") == "bin/linux"
    assert not remote.is_down
    assert not remote.pull(ours, STAGE, "b" * 64)
    assert not remote.is_down, "that there is no such entry is no failure"


@pytest.mark.parametrize("damage", ["archive", "short", "other key", "manifest", "no json"])
def test_damaged_and_forged_entries_are_refused(damage: str, tmp_path: Path, capsys: Any) -> None:
    environ = {
        "UMLBUILD_REMOTE": str(tmp_path / "remote"), "UMLBUILD_REMOTE_TRUSTED": "1", "UMLBUILD_REMOTE_PUSH": "1",
    }  # fmt: skip
    (tmp_path / "remote").mkdir()
    assert made(environ).push(filled(tmp_path / "theirs"), STAGE, KEY)
    told = tmp_path / f"remote/entries/{STAGE}/{KEY}.json"
    (blob,) = (tmp_path / "remote/blobs").iterdir()
    data = json.loads(told.read_text())
    if damage == "archive":
        blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    elif damage == "short":
        blob.write_bytes(blob.read_bytes()[:-9])
    elif damage == "no json":
        told.write_text("[]")
    else:
        data["entry"]["key" if damage == "other key" else "manifest"] = "c" * 64
        told.write_text(json.dumps(data))
    ours = Store(tmp_path / "ours")
    assert not made(environ).pull(ours, STAGE, KEY)
    assert not ours.path(STAGE, KEY).exists()
    assert "the remote store is left alone" in capsys.readouterr().err


@pytest.mark.parametrize("who", ["signer", "stranger", "nobody", "changed"])
def test_signatures(who: str, tmp_path: Path, capsys: Any) -> None:
    for name in ("signer", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)],
            check=True, timeout=30, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    (tmp_path / "allowed").write_text(f"ci@example {(tmp_path / 'signer.pub').read_text()}")
    (tmp_path / "remote").mkdir()
    environ = {
        "UMLBUILD_REMOTE": str(tmp_path / "remote"), "UMLBUILD_REMOTE_PUSH": "1",
        "UMLBUILD_REMOTE_SIGNERS": str(tmp_path / "allowed"),
    }  # fmt: skip
    key = {} if who == "nobody" else {
        "UMLBUILD_REMOTE_KEY": str(tmp_path / ("stranger" if who == "stranger" else "signer")),
    }  # fmt: skip
    if who == "nobody":
        with pytest.raises(HostError, match="would not be signed"):
            made(environ)
        environ["UMLBUILD_REMOTE_PUSH"] = "0"
        trusted = {"UMLBUILD_REMOTE_TRUSTED": "1", "UMLBUILD_REMOTE_PUSH": "1"}
        sender = {"UMLBUILD_REMOTE": environ["UMLBUILD_REMOTE"], **trusted}
    else:
        sender = {**environ, **key}
    assert made(sender).push(filled(tmp_path / "theirs"), STAGE, KEY)
    environ["UMLBUILD_REMOTE_PUSH"] = "0"
    if who == "changed":
        told = tmp_path / f"remote/entries/{STAGE}/{KEY}.json"
        data = json.loads(told.read_text())
        data["entry"]["size"] += 1
        told.write_text(json.dumps(data))
    assert made(environ).pull(Store(tmp_path / "ours"), STAGE, KEY) is (who == "signer")
    assert ("is not signed by anybody" in capsys.readouterr().err) is (who != "signer")


def test_a_remote_that_is_down_is_said_once(tmp_path: Path, capsys: Any) -> None:
    for address in ("http://127.0.0.1:9/store", str(tmp_path / "nowhere")):
        remote = made({"UMLBUILD_REMOTE": address, "UMLBUILD_REMOTE_TRUSTED": "1", "UMLBUILD_REMOTE_PUSH": "1"})
        started = time.monotonic()
        for letter in "abc":
            assert not remote.pull(Store(tmp_path / "ours"), STAGE, letter * 64)
        assert not remote.push(filled(tmp_path / "theirs"), STAGE, KEY)
        assert time.monotonic() - started < 30
        assert capsys.readouterr().err.count("the remote store is left alone") == 1


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"UMLBUILD_REMOTE": "/x"}, "nothing says why"),
        ({"UMLBUILD_REMOTE": "ftp://x", "UMLBUILD_REMOTE_TRUSTED": "1"}, "is no remote store"),
        ({"UMLBUILD_REMOTE": "s3://x", "UMLBUILD_REMOTE_TRUSTED": "1"}, "AWS_ENDPOINT_URL"),
        ({"UMLBUILD_REMOTE": "oci://registry.example", "UMLBUILD_REMOTE_TRUSTED": "1"}, "no repository in it"),
        ({"UMLBUILD_REMOTE": "oci://registry.example/Team", "UMLBUILD_REMOTE_TRUSTED": "1"}, "small letters"),
        ({"UMLBUILD_REMOTE": "/x", "UMLBUILD_REMOTE_SIGNERS": "/nowhere"}, "no such file"),
    ],
)
def test_settings_that_make_no_sense(environ: dict[str, str], says: str) -> None:
    with pytest.raises(HostError, match=says):
        remote_store(environ)


def test_signatures_of_requests_are_those_of_botocore() -> None:
    auth = pytest.importorskip("botocore.auth", reason="botocore is not installed")
    requests, credentials = (pytest.importorskip(f"botocore.{name}") for name in ("awsrequest", "credentials"))
    url = "https://127.0.0.1:9000/bucket/a-prefix/entries/kernel/aa.json"
    request = requests.AWSRequest("PUT", url)
    request.context["client_config"] = types.SimpleNamespace(s3={"payload_signing_enabled": False})
    signer = auth.S3SigV4Auth(credentials.Credentials("KEY", "SECRET", "TOKEN"), "s3", "eu-central-1")
    signer.add_auth(request)
    stamp = request.headers["X-Amz-Date"]
    who = Credentials("KEY", "SECRET", "TOKEN", "eu-central-1")
    ours = signed("PUT", url, who, time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    assert request.headers["X-Amz-Content-SHA256"] == ours["x-amz-content-sha256"]
    assert request.headers["Authorization"] == ours["Authorization"]


def test_a_build_pulls_the_last_step_and_nothing_below(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'tasks')!r})\n"
        "import fakeworld; fakeworld.install()\nfrom umlbuild.tasks import main\n"
        "sys.exit(main(['build', 'recipe=r.toml']))\n"
    )

    def build(where: str, **more: str) -> subprocess.CompletedProcess[str]:
        project = tmp_path / where
        project.mkdir(exist_ok=True)
        (project / "r.toml").write_text("format = 1\nname = 'r'\n")
        env = {
            "FAKE_RAN": str(project / "ran"), "PATH": "/usr/bin:/bin", "UMLBUILD_REMOTE_TRUSTED": "1", **more,
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-c", code], cwd=project, env=env, check=True, timeout=60, capture_output=True, text=True
        )

    (tmp_path / "remote").mkdir()
    with web(tmp_path / "remote") as (url, asked):
        assert "bundle r: done, sent" in build("one", UMLBUILD_REMOTE=url, UMLBUILD_REMOTE_PUSH="1").stdout
        asked.clear()
        done = build("two", UMLBUILD_REMOTE=url)
        assert f"bundle r: from {url}" in done.stderr
        assert not (tmp_path / "two/ran").exists(), "a stage ran"
        assert (tmp_path / "two/dist/r/run").exists()
        assert [line.split("/")[2] for line in asked] == ["entries", "blobs"]
        asked.clear()
        build("two", UMLBUILD_REMOTE=url)
        assert asked == [], "the network was used although the key is here"
    done = build("three", UMLBUILD_REMOTE=url)
    assert (tmp_path / "three/dist/r/run").exists()
    assert done.stderr.count("\n") == 1
