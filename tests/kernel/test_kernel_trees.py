"""Kernels of 7.x really built from a tree and from a tarball, booted where nothing of the host is, and compared.

All have one configuration. The first build compiles; later runs find the compiler's cache warm, or the kernel
itself in the store.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundles
import pytest
import sourcekit
import tomli_w
import webkit
from sourcekit import Built

from umlbuild import digest, kconfig
from umlbuild.host import process
from umlbuild.host.elf import Linkage, linkage_of
from umlbuild.host.kbuild import PROGRAMS
from umlbuild.host.store import Store, remove

MISSING = sorted(program for program in {*PROGRAMS, "depmod", "apt-get", "bwrap"} if process.find(program) is None)
pytestmark = [
    pytest.mark.build,
    pytest.mark.boot,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(MISSING), reason=f"missing: {' '.join(MISSING)}"),
]
NOBODY = 65534
NOBODYS: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
ENV = {
    "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": os.pathsep.join([str(bundles.PROJECT), *(path for path in sys.path if "site-packages" in path)]),
}  # fmt: skip
PARTS = ("config", "linux", "modules.tar", "release")


@pytest.fixture(scope="module")
def tree() -> Path:
    return sourcekit.tree_7()


@pytest.fixture(scope="module")
def from_tree(tree: Path) -> Built:
    before = sourcekit.fingerprint(tree)
    built = sourcekit.built("from-tree", {"kind": "tree", "path": str(tree)})
    assert sourcekit.fingerprint(tree) == before, "a tree of the user's is only read"
    return built


def test_the_kernel_is_static_with_vector_devices(from_tree: Built) -> None:
    assert sorted(path.name for path in from_tree.kernel.iterdir() if path.name[0] != ".") == list(PARTS)
    assert linkage_of(from_tree.kernel / "linux") == Linkage(None, ())
    told = subprocess.run(["ldd", from_tree.kernel / "linux"], capture_output=True, text=True, timeout=30, check=False)
    assert told.returncode == 1 and "not a dynamic executable" in told.stderr
    config = kconfig.parse(process.output([str(from_tree.kernel / "linux"), "--showconfig"]), "--showconfig")
    assert (config["UML_NET_VECTOR"], config["DUMMY"], config.get("STATIC_LINK", "n")) == ("y", "m", "n")


@pytest.mark.parametrize("mode", ["off", "on"])
def test_it_boots_where_nothing_of_the_host_is(from_tree: Built, tmp_path: Path, mode: str) -> None:
    words = [f"seccomp={mode}"]
    status, console = sourcekit.boot_in_an_empty_root(from_tree.kernel, from_tree.image, tmp_path / "state", words)
    release = (from_tree.kernel / "release").read_text().strip()
    assert (status, console.split()[0]) == (sourcekit.STATUS, release), console


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_a_prebuilt_kernel_runs_with_the_c_library_of_its_suite(suite: str, tmp_path: Path) -> None:
    """Trixie's needs a newer one than bookworm has: the host's does not matter."""
    built = sourcekit.built(f"prebuilt-{suite}", {"kind": "prebuilt", "suite": suite})
    names = {path.name for path in (built.kernel / "lib").iterdir()}
    assert names == {"ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "xstate.so"}
    status, console = sourcekit.boot_in_an_empty_root(built.kernel, built.image, tmp_path / "state")
    release = (built.kernel / "release").read_text().strip()
    assert status == sourcekit.STATUS and release in console, console


def small_tree(directory: Path) -> Path:
    root = directory / "linux"
    files = {
        "Makefile": "VERSION = 7\nPATCHLEVEL = 3\n", "arch/um/Kconfig": "config UML\n",
        "init/main.c": "int x;\n", ".git/HEAD": "ref: refs/heads/a\n",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.usefixtures("from_tree")
def test_what_moves_the_key_of_a_tree(tmp_path: Path) -> None:
    """Only its content: not times, not git's own files, not where it lies."""
    directory = tmp_path / "a"
    directory.mkdir()
    recipe = directory / "demo.toml"
    recipe.write_text(tomli_w.dumps(sourcekit.recipe("demo", {"kind": "tree", "path": "linux"})))
    shutil.copyfile(bundles.CACHE / "tests/kernel/from-tree.lock.toml", directory / "demo.lock.toml")

    def keys(path: Path = recipe) -> dict[str, str]:
        return {step.stage: step.key for step in sourcekit.plan(path, tmp_path / "cache").parts["kernel"].walk()}

    root = small_tree(directory)
    first = keys()
    assert set(first) == {"kernel_config", "kernel"}
    os.utime(root / "init/main.c", (1, 1))
    (root / ".git/HEAD").write_text("ref: refs/heads/b\n")
    assert keys() == first
    shutil.copytree(directory, tmp_path / "elsewhere")
    assert keys(tmp_path / "elsewhere/demo.toml") == first
    shutil.rmtree(root / ".git")
    assert keys() == first
    (root / "init/main.c").write_text("int y;\n")
    second = keys()
    assert all(second[stage] != first[stage] for stage in first)
    (root / "init/main.c").write_text("int x;\n")
    assert keys() == first
    (root / "init/main.c").chmod(0o755)
    assert keys() != first, "a script's mode matters to make"


@functools.cache
def python_for_everybody() -> str:
    """An interpreter that an ordinary user can start and that has what umlbuild imports; "" if there is none."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            argv = [candidate, "-c", "import doit, pydantic, tomli_w, umlbuild.cli"]
            tried = subprocess.run(
                argv, **NOBODYS, env=ENV, cwd="/", capture_output=True, timeout=60, check=False
            )
            if tried.returncode == 0:
                return candidate
    return ""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_place_and_no_ccache_give_the_same_bytes(
    tree: Path, open_place: Path, from_tree: Built
) -> None:
    """Built from a git checkout in another place, which the user may only read, with another umask and zone."""
    if not python_for_everybody():
        pytest.skip("no Python interpreter that every user may run has what umlbuild needs")
    checkout = open_place / "somewhere/else/linux"
    copied(tree, checkout)
    home = open_place / "home"
    programs = home / "bin"
    programs.mkdir(parents=True)
    for directory in ("/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in Path(directory).glob("*"):
            if program.name != "ccache" and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    recipe = home / "demo.toml"
    recipe.write_text(tomli_w.dumps(sourcekit.recipe("from-tree", {"kind": "tree", "path": str(checkout)})))
    shutil.copyfile(sourcekit.PROJECT / "from-tree.lock.toml", home / "demo.lock.toml")
    os.chown(home, NOBODY, NOBODY)
    before = sourcekit.fingerprint(checkout)
    cache = home / "cache"
    done = subprocess.run(
        [python_for_everybody(), "-m", "umlbuild.cli", "kernel", str(recipe)], **NOBODYS, umask=0o077, cwd=home,
        env={**ENV, "PATH": str(programs), "UMLBUILD_CACHE": str(cache), "TZ": "Asia/Tokyo", "HOME": str(home)},
        capture_output=True, text=True, timeout=bundles.BUILD_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert not (cache / "ccache").exists()
    assert sourcekit.fingerprint(checkout) == before
    step = sourcekit.plan(recipe, open_place / "tools").parts["kernel"]
    assert step.key == from_tree.kernel.name, "one key"
    same_bytes(Store(cache).path(step.stage, step.key), from_tree.kernel)


def copied(tree: Path, copy: Path) -> None:
    """Copy the tree and make it look like a git checkout."""
    shutil.copytree(tree, copy, symlinks=True)
    (copy / ".git").mkdir()
    (copy / ".git/HEAD").write_text("ref: refs/heads/main\n")


@pytest.mark.slow
def test_a_tarball_over_http_gives_the_same_kernel(tree: Path, from_tree: Built, tmp_path: Path) -> None:
    """Its connection breaks once; the tarball's kernel has other keys and the same bytes, and boots."""
    tarball = tmp_path / "linux-7.3.tar.zst"
    process.run(
        ["tar", "-C", str(tree.parent), "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-I", "zstd -1 -T0",
         "-cf", str(tarball), "linux"],
        log=None, timeout_s=600,
    )  # fmt: skip
    with webkit.serving(tmp_path, cut_once_at=tarball.stat().st_size // 2) as server:
        source = {"kind": "tarball", "url": f"{server.url}/{tarball.name}", "sha256": digest.of_file(tarball)}
        built = sourcekit.built("from-tarball", source)
        # The second build of the same bytes finds its source in the store, whatever the server's port.
        assert not server.ranges or webkit.resumed_near(server.ranges, tarball.stat().st_size // 2)
    assert built.kernel.name != from_tree.kernel.name
    same_bytes(built.kernel, from_tree.kernel)
    status, console = sourcekit.boot_in_an_empty_root(built.kernel, built.image, tmp_path / "state")
    assert (status, console.split()[0]) == (sourcekit.STATUS, "7.3.4"), console


@pytest.mark.slow
def test_an_edited_file_gives_another_kernel(tree: Path, from_tree: Built, tmp_path: Path) -> None:
    # Always in one place, since ccache knows sources by their paths.
    place = sourcekit.PROJECT / "edited"
    with Store(bundles.CACHE).locked("tests", "kernel-edited"):
        remove(place)
        copied(tree, place / "linux")
        main = place / "linux/arch/um/kernel/um_arch.c"
        main.write_text(f'{main.read_text()}\nconst char umlbuild_mark[] __attribute__((used)) = "{tmp_path}";\n')
        built = sourcekit.built("edited", {"kind": "tree", "path": str(place / "linux")}, tmp_path)
        remove(place)
    assert built.kernel.name != from_tree.kernel.name
    assert os.fsencode(tmp_path) in (built.kernel / "linux").read_bytes()
    status, console = sourcekit.boot_in_an_empty_root(built.kernel, built.image, tmp_path / "state")
    assert status == sourcekit.STATUS, console
    remove(built.kernel)  # no later run will ask for it


def same_bytes(one: Path, other: Path) -> None:
    ours, theirs = ({name: digest.of_file(entry / name) for name in PARTS} for entry in (one, other))
    assert ours == theirs
