"""Builds on hosts with something wrong, of which each really is so: said before work begins, or in clear words."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bundles
import oddhosts
import pytest
import tomli_w

from umlbuild.errors import FetchError, HostError, StepFailed, ToolFailed
from umlbuild.host import diskfull

needs_namespaces = pytest.mark.skipif(bool(oddhosts.why_not()), reason=oddhosts.why_not())
real = pytest.mark.build

CHECK = """
import sys
from pathlib import Path
from umlbuild.errors import UserError
from umlbuild.host import needs
from umlbuild.specs.image import ImageSpec
from umlbuild.specs.rootfs import ConfigureSpec, Method, RootfsSpec, Script

needs.missing = lambda programs: []  # what is installed here is not the question
fake = ("mmdebstrap",) if sys.argv[2] == "may pretend" else None
from umlbuild.host.debian import release_of_host
spec = RootfsSpec(bootstrap="mmdebstrap", method=Method(makes="tar", argv=("true",), fake_argv=fake),
                  suite=release_of_host(), architecture="amd64", variant="minbase", include=())
try:
    needs.require_for([spec], Path(sys.argv[1]), print)
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
"""
"""Asks, as every build does before work, whether a root file system can be made."""


def environment(**more: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("UMLBUILD_")}
    return {**env, "PYTHONPATH": f"{bundles.PROJECT}", "PYTHONDONTWRITEBYTECODE": "1", **more}


@needs_namespaces
@pytest.mark.parametrize(
    ("preamble", "pretend", "says"),
    [
        ("{ids}; " + oddhosts.NO_USER_NAMESPACES, "not", ("max_user_namespaces = 0", "sudo sysctl -w user.max_user_")),
        ("{ids}; " + oddhosts.NO_USER_NAMESPACES, "may pretend", ()),
        (
            "{ids}; " + oddhosts.sysctl("unprivileged_userns_clone", 0) + "; " + oddhosts.NO_USER_NAMESPACES,
            "not", ("kernel.unprivileged_userns_clone = 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ),
        ("{none}", "not", ("odd has no 65536 sub", "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-")),
        ("{none}", "may pretend", ()),
        ("{none}; mount -t tmpfs -o noexec t {cache}", "may pretend", ("{cache}", "noexec", "UMLBUILD_CACHE")),
        ("{none}; mount -t tmpfs -o ro t {cache}", "may pretend", ("{cache}", "read-only", "UMLBUILD_CACHE")),
        ("{none}; mount -t tmpfs -o size=60m t {cache}", "may pretend", ("{cache}", "MB are free", "UMLBUILD_CACHE")),
        ("{none}; mount -t tmpfs -o size=60m,noexec t {cache}", "not", ("MB are free", "noexec", "usermod")),
    ],
)  # fmt: skip
def test_said_before_any_work(tmp_path: Path, preamble: str, pretend: str, says: tuple[str, ...]) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    user = oddhosts.without_ids(tmp_path, ids="{ids}" in preamble)
    for mark, value in {"{ids}": user, "{none}": user, "{cache}": str(cache)}.items():
        preamble = preamble.replace(mark, value)
        says = tuple(word.replace(mark, value) for word in says)
    done = oddhosts.run_on(preamble, [sys.executable, "-c", CHECK, str(cache), pretend], env=environment())
    assert done.returncode == (2 if says else 0), done.stdout + done.stderr
    assert [word for word in says if word not in done.stdout] == [], done.stdout
    assert ("  fix: " in done.stdout) == bool(says)


@needs_namespaces
def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o555)
    argv = [sys.executable, "-c", CHECK, str(tmp_path / "other" / "cache"), "may pretend"]
    done = oddhosts.run_on(oddhosts.without_ids(tmp_path), argv, env=environment())
    assert done.returncode == 2 and "may not write to" in done.stdout and "UMLBUILD_CACHE" in done.stdout


# --- real builds ------------------------------------------------------------------------------------------

FULL = """
import sys
from umlbuild.host import place
place._ROOM_MB.clear()  # as if the room that was there had been taken meanwhile
from umlbuild.cli import main
main()
"""


def write_recipe(project: Path, name: str = "odd") -> Path:
    """The cheapest real recipe: nothing is compiled, nothing is configured by its packages."""
    data = bundles.recipe(name, bundles.PREBUILT, "busybox", "ext4", rootfs={"bootstrap": "extract"})
    path = project / f"{name}.toml"
    path.write_text(tomli_w.dumps(data))
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose bundle is built, so that there is a lock and a last good dist/."""
    directory = tmp_path_factory.mktemp("project")
    bundles.build_file(write_recipe(directory), directory)
    return directory


def listing(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(directory.iterdir())
    }  # fmt: skip


@real
@needs_namespaces
@pytest.mark.parametrize("size_mb", [1, 12, 60])
def test_a_disk_that_becomes_full_during_a_step(project: Path, tmp_path: Path, size_mb: int) -> None:
    """Whatever step meets it: our own writing, or a program of a step."""
    before = listing(project / "dist" / "odd")
    cache = tmp_path / "cache"
    cache.mkdir()
    done = oddhosts.run_on(
        f"mount -t tmpfs -o size={size_mb}m t {cache}",
        [sys.executable, "-c", FULL, "build", "odd.toml"],
        env=environment(UMLBUILD_CACHE=str(cache)), cwd=project, timeout_s=300,
        after=f"cp -r {cache}/logs {tmp_path}/logs; cd {cache}; find * -maxdepth 1 -name '.*' >{tmp_path}/left;"
        f" ls work >>{tmp_path}/left;"
        f" for e in packages/* tools/* prebuilt_kernel/* rootfs/* image/* bundle/*; do [ ! -d $e ] ||"
        f" [ -s $e/.manifest.json ] || echo $e; done >>{tmp_path}/left",
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2), said
    assert "full" in said and f"df -h {cache}" in said and "UMLBUILD_CACHE" in said
    assert "a bug in umlbuild" not in said and "Traceback" not in said
    assert (tmp_path / "left").read_text() == "", "something half-made is in the store"
    assert listing(project / "dist" / "odd") == before


@pytest.mark.slow
@real
@needs_namespaces
def test_a_disk_that_becomes_full_while_resolving(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    done = oddhosts.run_on(
        f"mount -t tmpfs -o size=20m t {cache}", [sys.executable, "-m", "umlbuild.cli", "build", "odd.toml"],
        env=environment(UMLBUILD_CACHE=str(cache)), cwd=tmp_path, timeout_s=300,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2) and "full" in said and f"df -h {cache}" in said, said
    assert not (tmp_path / "odd.lock.toml").exists()


@real
@needs_namespaces
def test_a_cache_that_became_read_only(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    (tmp_path / "cache" / "locks").mkdir(parents=True)
    (tmp_path / "cache" / "CACHEDIR.TAG").touch()
    cache = tmp_path / "cache"
    done = oddhosts.run_on(
        f"mount --bind {cache} {cache}; mount -o remount,bind,ro {cache}",
        [sys.executable, "-m", "umlbuild.cli", "build", "odd.toml"],
        env=environment(UMLBUILD_CACHE=str(cache)), cwd=tmp_path, timeout_s=300,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 2 and "read-only" in said and "UMLBUILD_CACHE" in said, said
    assert "Traceback" not in said


@contextlib.contextmanager
def a_mirror(kind: str) -> Iterator[str]:
    """The address of a mirror that is gone: nobody listens, or it has nothing."""
    if kind == "closed":
        with socket.socket() as taken:  # bound, not listening: nobody else gets the port
            taken.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{taken.getsockname()[1]}/debian"
        return

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Nothing)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/debian"
        finally:
            server.shutdown()
            thread.join()


@real
@pytest.mark.parametrize(
    ("kind", "locked", "says"),
    [
        ("closed", False, ("cannot be read", "fix: ", "UMLBUILD_MIRROR")),
        ("closed", True, ("Connection refused", "fix: ", "UMLBUILD_MIRROR")),
        ("404", False, ("no such suite", "fix: ")),
        ("404", True, ("does not have it any more", "fix: ", "umlbuild lock RECIPE --update")),
    ],
)
def test_a_mirror_that_is_gone(
    project: Path, tmp_path: Path, kind: str, locked: bool, says: tuple[str, ...]
) -> None:
    path = write_recipe(tmp_path)
    if locked:
        (tmp_path / "odd.lock.toml").write_bytes((project / "odd.lock.toml").read_bytes())
    began = time.monotonic()
    with a_mirror(kind) as url:
        done = oddhosts.run_plain(
            [sys.executable, "-m", "umlbuild.cli", "kernel", str(path)], cwd=tmp_path, timeout_s=120,
            env=environment(UMLBUILD_CACHE=str(tmp_path / "cache"), UMLBUILD_MIRROR=url),
        )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2) and time.monotonic() - began < 90, said
    assert url in said and [word for word in says if word not in said] == [], said
    assert "Traceback" not in said


# --- the wording alone ------------------------------------------------------------------------------------


def os_error(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize("number", [28, 122, 30])
def test_our_own_writing(tmp_path: Path, number: int) -> None:
    error = diskfull.worded(os_error(number, str(tmp_path / "file")), Path("/elsewhere"))
    assert isinstance(error, HostError) and error.message.startswith(f"{tmp_path}: ")
    assert "UMLBUILD_CACHE" in error.hint
    copying = OSError(number, "x", "/elsewhere/read", None, str(tmp_path / "written"))
    assert str(diskfull.worded(copying, Path("/elsewhere"))).startswith(f"{tmp_path}: ")
    nameless = diskfull.worded(os_error(number), tmp_path)
    assert isinstance(nameless, HostError) and nameless.message.startswith(f"{tmp_path}: ")


def test_an_error_whose_cause_it_is(tmp_path: Path) -> None:
    error = StepFailed("packing")
    error.__cause__ = os_error(28)
    assert isinstance(diskfull.worded(error, tmp_path), HostError)


@pytest.mark.parametrize(
    "error",
    [
        FetchError("apt: Write error - write (28: No space left on device)", "name another mirror"),
        ToolFailed(["tar"], "exit status 2", None, ["tar: x: Cannot write: No space left on device"]),
        ToolFailed(["tar"], "exit status 2", None, ["tar: x.tar: Wrote only 6144 of 10240 bytes"]),
    ],
)
def test_what_a_program_said(tmp_path: Path, error: StepFailed) -> None:
    told = diskfull.worded(error, tmp_path)
    assert told is error
    assert "seems to be full" in str(told) and f"df -h {tmp_path}" in str(told)


@pytest.mark.parametrize(
    "error", [os_error(2, "/x"), KeyError("x"), StepFailed("x", "y"), ToolFailed(["tar"], "exit status 2", None, [])]
)
def test_other_errors_stay_as_they_are(tmp_path: Path, error: Exception) -> None:
    before = str(error)
    assert diskfull.worded(error, tmp_path) is error and str(error) == before
