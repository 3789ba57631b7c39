"""The launcher on hosts with something wrong, of which each really is so: refused in words with a fix, or it works.

Never a stack of kernel messages alone, never a hang, and nothing is left behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bundles
import oddhosts
import pytest

pytestmark = [
    pytest.mark.slow,  # 67 starts on odd hosts
    pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(oddhosts.why_not()), reason=oddhosts.why_not()),
]  # fmt: skip

WORKED = 7
REFUSED = 125
INIT = {"kind": "script", "command": ["/bin/sh", "-c", f"exit {WORKED}"]}
SANDBOXES = ("bwrap", "landlock", "none")


@pytest.fixture(scope="module", params=SANDBOXES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A real bundle whose machine ends at once with status 7, and the options that it needs."""
    sandbox = str(request.param)
    recipe = bundles.recipe(
        f"odd-{sandbox}", bundles.PREBUILT, INIT, "ext4", launch={"memory": "128M", "sandbox": sandbox}
    )
    built = bundles.build(recipe, tmp_path_factory.mktemp("project"))
    return built, ["--no-sandbox"] if sandbox == "none" else []


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that starts share: what a launcher measures once per host is measured once here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path (UML's sockets lie below it) with all directories that a launcher may write to."""
    path = Path(tempfile.mkdtemp(prefix="uh-", dir="/tmp"))
    for name in ("run", "tmp", "home", "cache", "memory", "state"):
        (path / name).mkdir(mode=0o700)
    yield path
    try:
        deadline = time.monotonic() + 5  # the launcher does not wait for its janitor's own end
        while (left := processes_in(path)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []
        for name in ("run", "tmp", "memory"):
            assert not list((path / name).iterdir()), name
    finally:
        shutil.rmtree(path)


def processes_in(directory: Path) -> list[str]:
    """The processes whose working directory is below it, or that were started with its name."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                facts = [os.readlink(entry / "cwd"), (entry / "cmdline").read_bytes().decode(errors="replace")]
            except OSError:
                continue
            if any(str(directory) in fact for fact in facts):
                found.append(f"{entry.name}: {facts}")
    return found


def environment(place: Path, **more: str) -> dict[str, str]:
    names = {"XDG_RUNTIME_DIR": "run", "TMPDIR": "tmp", "HOME": "home", "XDG_CACHE_HOME": "cache"}
    given = {name: str(place / where) for name, where in names.items()}
    return {"PATH": os.environ["PATH"], **given, **more}


@dataclass(frozen=True)
class Case:
    """A host, and what is to be said there; no words: the machine works all the same."""

    preamble: str = ""
    says: Sequence[str] = ()
    options: Sequence[str] = ("--ephemeral",)
    env: dict[str, str] = field(default_factory=dict)
    may_work: bool = False
    """A bundle with a sandbox may do without what is missing."""


OWN_MEMORY = {"UMLBUILD_MEMORY_DIR": "{place}/memory"}
SMALL_DEV = (
    "mount -t tmpfs d {place}/home; for n in null zero full random urandom tty; do"
    " : >{place}/home/$n; mount --bind /dev/$n {place}/home/$n; done; ln -s /proc/self/fd {place}/home/fd;"
    " ln -s fd/0 {place}/home/stdin; ln -s fd/1 {place}/home/stdout; ln -s fd/2 {place}/home/stderr;"
    " mount --rbind {place}/home /dev"
)
"""A /dev without shm."""

CASES = {
    "nothing wrong": Case(),
    "ptrace for nobody": Case(oddhosts.sysctl("yama/ptrace_scope", 3), ("ptrace_scope = 3", "fix: ", "reboot")),
    "ptrace for root": Case(
        oddhosts.sysctl("yama/ptrace_scope", 2), ("ptrace_scope = 2", "fix: ", "kernel.yama.ptrace_scope=1")
    ),
    "ptrace for parents": Case(oddhosts.sysctl("yama/ptrace_scope", 1)),
    "noexec /dev/shm": Case(
        "mount -t tmpfs -o noexec t /dev/shm", ("/dev/shm", "noexec", "fix: ", "remount,exec"), may_work=True
    ),
    "small /dev/shm": Case(
        "mount -t tmpfs -o size=64m t /dev/shm",
        ("/dev/shm", "64 MiB", "128 MiB", "fix: ", "--memory", "UMLBUILD_MEMORY_DIR"),
        may_work=True,
    ),
    "no /dev/shm": Case(SMALL_DEV),
    "noexec memory": Case(
        "mount -t tmpfs -o noexec t {place}/memory", ("{place}/memory", "noexec", "fix: "), env=OWN_MEMORY
    ),
    "small memory": Case(
        "mount -t tmpfs -o size=64m t {place}/memory", ("{place}/memory", "64 MiB", "fix: "), env=OWN_MEMORY
    ),
    "memory that may not be written": Case(
        "mount -t tmpfs -o ro t {place}/memory", ("{place}/memory", "writable", "fix: "), env=OWN_MEMORY
    ),
    "no such memory": Case(
        says=("/nowhere", "directory", "fix: ", "UMLBUILD_MEMORY_DIR"), env={"UMLBUILD_MEMORY_DIR": "/nowhere"}
    ),
    "read-only home": Case(
        "mount -t tmpfs -o ro t {place}/home", ("{place}/home", "writable", "fix: ", "--ephemeral"), options=()
    ),
    "read-only state": Case(
        "mount -t tmpfs -o ro t {place}/state", ("{place}/state", "writable", "fix: ", "XDG_STATE_HOME"), options=(),
        env={"XDG_STATE_HOME": "{place}/state"},
    ),
    "full state": Case(
        "mount -t tmpfs -o size=4k t {place}/state", ("{place}/state", "space", "fix: "), options=(),
        env={"XDG_STATE_HOME": "{place}/state"},
    ),
    "nearly full state": Case(
        "mount -t tmpfs -o size=1m t {place}/state", ("{place}/state", "free", "fix: "), options=(),
        env={"XDG_STATE_HOME": "{place}/state"},
    ),
    "full place for what is thrown away": Case(
        "mount -t tmpfs -o size=4k t {place}/tmp", ("{place}/tmp", "space", "fix: ")
    ),
    "no runtime directory": Case("mount -t tmpfs -o ro t {place}/run"),
    "read-only cache": Case("mount -t tmpfs -o ro t {place}/cache"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_host(name: str, bundle: tuple[Path, list[str]], place: Path, warm: Path) -> None:
    case = CASES[name]
    cache = {"XDG_CACHE_HOME": "{place}/cache" if "{place}/cache" in case.preamble else str(warm)}

    def filled(text: str) -> str:
        return text.replace("{place}", str(place))

    directory, options = bundle
    done = oddhosts.run_on(
        filled(case.preamble), [str(directory / "run"), *options, *case.options],
        env=environment(place, **{key: filled(value) for key, value in {**cache, **case.env}.items()}),
        after=f"cd {place}; find state tmp run memory -name '*.cow*' -o -name 'uml*-????????' >left",
    )  # fmt: skip
    check(done, [filled(word) for word in case.says], may_work=case.may_work and not options)
    if done.returncode == REFUSED:
        assert (place / "left").read_text() == ""


def check(done: subprocess.CompletedProcess[str], says: Sequence[str], *, may_work: bool = False) -> None:
    if not says or (may_work and done.returncode == WORKED):
        assert done.returncode == WORKED, done.stderr
        return
    assert done.returncode == REFUSED, (done.returncode, done.stdout, done.stderr)
    assert [word for word in says if word not in done.stderr] == [], done.stderr
    assert "Kernel panic" not in done.stderr and len(done.stderr.splitlines()) < 30


@pytest.mark.parametrize("measured", [False, True], ids=["first start", "lpj known"])
def test_a_container_without_ptrace(measured: bool, bundle: tuple[Path, list[str]], place: Path) -> None:
    directory, options = bundle
    argv = [str(directory / "run"), *options, "--ephemeral"]
    if measured:
        check(oddhosts.run_on("", argv, env=environment(place)), [])
        assert list(place.glob("cache/umlbuild/lpj-*"))
    done = oddhosts.run_on("", oddhosts.forbidding(oddhosts.PTRACE, argv), env=environment(place))
    check(done, ["ptrace", "fix: ", "seccomp=unconfined"])


def test_no_user_namespaces(bundle: tuple[Path, list[str]], place: Path) -> None:
    """Only a sandbox needs them."""
    directory, options = bundle
    argv = [str(directory / "run"), *options, "--ephemeral"]
    done = oddhosts.run_on(oddhosts.NO_USER_NAMESPACES, argv, env=environment(place))
    needs_none = options or '"landlock"' in (directory / "recipe.toml").read_text()
    check(done, [] if needs_none else ["user.max_user_namespaces = 0", "fix: ", "sysctl"])


def test_the_bundle_on_a_noexec_disk(bundle: tuple[Path, list[str]], place: Path) -> None:
    directory, options = bundle
    argv = ["sh", str(directory / "run"), *options, "--ephemeral"]
    mount = f"mount --bind {directory} {directory}; mount -o remount,bind,noexec {directory}"
    check(oddhosts.run_on(mount, argv, env=environment(place)), [str(directory), "noexec", "fix: "])


def test_a_disk_that_becomes_full_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, place: Path
) -> None:
    """The guest sees I/O errors and goes on; its end is its own, the host is left as it was."""
    command = ["/bin/sh", "-c", f"dd if=/dev/zero of=/big bs=1M count=80; sync; exit {WORKED}"]
    recipe = bundles.recipe(
        "odd-full", bundles.PREBUILT, {"kind": "script", "command": command}, "ext4",
        launch={"memory": "128M"},
    )  # fmt: skip
    recipe["image"]["size"] = "auto+128M"
    built = bundles.build(recipe, tmp_path_factory.mktemp("project"))
    done = oddhosts.run_on(
        f"mount -t tmpfs -o size=40m t {place}/state", [str(built / "run"), "--timeout", "90"],
        env=environment(place, XDG_STATE_HOME=f"{place}/state"), timeout_s=120,
    )  # fmt: skip
    assert done.returncode in (WORKED, 126), (done.returncode, done.stderr[-2000:])

