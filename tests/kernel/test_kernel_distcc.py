"""distcc: other machines compile the same bytes, or do not take part. They are distccd on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sourcekit

from umlbuild import digest
from umlbuild.host import distcc, process
from umlbuild.host.kbuild import Kbuild
from umlbuild.host.offline import VARIABLE

pytestmark = pytest.mark.skipif(process.find("distccd") is None, reason="needs distcc, whose package has distccd too")

Serve = Callable[..., str]
PARTS = ("kernel/time/", "kernel/locking/", "lib/crypto/")


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that distccd can read, which root's runs as another user."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a machine that compiles; gives the word that names it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(path: str = os.environ["PATH"]) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        argv = [
            "distccd", "--daemon", "--no-detach", "--listen", "127.0.0.1", "--port", str(port), "--allow", "127.0.0.1",
            "--enable-tcp-insecure", "--jobs", "2", "--log-stderr", "--log-level", "info",
        ]  # fmt: skip
        with (tmp_path / f"distccd-{port}.log").open("wb") as log:
            env = {"PATH": path, "TMPDIR": "/tmp"}
            started.append(
                subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
            )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return f"127.0.0.1:{port}/2"
            except OSError:
                time.sleep(0.05)
        raise AssertionError((tmp_path / f"distccd-{port}.log").read_text())

    yield start
    for child in started:
        child.terminate()
        child.wait(timeout=20)


def compiled_there(tmp_path: Path, word: str) -> int:
    """How many files a machine has compiled."""
    port = word.partition(":")[2].partition("/")[0]
    return (tmp_path / f"distccd-{port}.log").read_text(errors="replace").count("COMPILE_OK")


def usable(words: str, tmp_path: Path, config: dict[str, str] | None = None) -> tuple[tuple[str, ...], list[str]]:
    said: list[str] = []
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return distcc.usable({"DISTCC_HOSTS": words}, config or {}, work, tmp_path / "log", said.append), said


def test_only_machines_with_the_same_compiler(tmp_path: Path, public: Path, serve: Serve) -> None:
    other = public / "bin"
    other.mkdir(mode=0o755)
    (other / "gcc").write_text(f'#!/bin/sh\nexec {shutil.which("gcc")} "$@" -fno-ident\n')
    (other / "gcc").chmod(0o755)
    good, bad, dead = serve(), serve(f"{other}:{os.environ['PATH']}"), "127.0.0.1:1"
    found, said = usable(f"localhost/2 {bad} {good} {dead}", tmp_path)
    assert found == ("localhost/2", good)
    assert said == [f"distcc: {bad} has another compiler; left out", f"distcc: {dead} does not compile; left out"]
    assert distcc.jobs(found) == 2
    assert usable(f"localhost {dead}", tmp_path)[0] == ()


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ("", {}, "distcc: DISTCC_HOSTS names no machine; compiling here"),
        ("build.example", {VARIABLE: "1"}, "offline: compiling here, without distcc"),
    ],
)
def test_not_elsewhere_with_the_reason(
    words: str, environment: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert usable(words, tmp_path) == ((), [said])


def test_debug_information_is_made_here(tmp_path: Path, serve: Serve) -> None:
    """It tells where the compiler worked, and the kernel's build identifier is made of it, too."""
    found, said = usable(serve(), tmp_path, {"DEBUG_INFO": "y"})
    assert found == () and "DEBUG_INFO" in said[0]


@pytest.mark.parametrize(
    ("words", "count"), [(("a",), 4), (("a/9,lzo", "b:3632/2"), 11), (("localhost/2", "--localslots=3", "c/1"), 1)]
)
def test_jobs(words: tuple[str, ...], count: int) -> None:
    assert distcc.jobs(words) == count


@pytest.mark.slow
def test_objects_of_a_kernel_have_the_same_bytes(tmp_path: Path, serve: Serve) -> None:
    """Parts of a real kernel, in other directories, with and without another machine; the last without ccache."""
    source = sourcekit.tree_7()
    machine = serve()
    found: list[dict[str, str]] = []
    for name, helpers, ccache in (("here", (), False), ("there", (machine,), False), ("both", (machine,), True)):
        objects = tmp_path / name / "build"
        objects.mkdir(parents=True)
        cache = tmp_path / name / "ccache" if ccache and process.find("ccache") else None
        kbuild = Kbuild(source, objects, tmp_path / f"{name}.log", 2, cache, helpers)
        (objects / ".config").write_text("CONFIG_64BIT=y\nCONFIG_DEBUG_INFO_NONE=y\n")
        kbuild.make("olddefconfig")
        before = compiled_there(tmp_path, machine)
        kbuild.make(*PARTS)
        made = [objects / ".config", *(path for part in PARTS for path in sorted((objects / part).rglob("*.o")))]
        found.append({str(path.relative_to(objects)): digest.of_file(path) for path in made})
        assert (compiled_there(tmp_path, machine) - before >= len(found[-1]) - len(PARTS)) == bool(helpers)
    assert len(found[0]) > 20
    assert found[0] == found[1] == found[2]
