"""How programs are linked, what is put beside them, and which kernels are linked statically."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from umlbuild.errors import StepFailed
from umlbuild.host import libraries, process
from umlbuild.host.elf import Linkage, linkage_of
from umlbuild.host.files import Files
from umlbuild.host.identity import Identities, compilers_library
from umlbuild.host.kbuild import links_statically
from umlbuild.lock import Lock, Wishes
from umlbuild.plan.inputs import Identity
from umlbuild.plan.kernel import kernel_step
from umlbuild.recipe.load import parse

LOADER = "/lib64/ld-linux-x86-64.so.2"
pytestmark = pytest.mark.skipif(process.find("gcc") is None, reason="missing: gcc")


def compiled(path: Path, *options: str, code: str = "int main(void) { return 0; }") -> Path:
    argv = ["gcc", "-x", "c", "-", "-o", str(path), *options]
    subprocess.run(argv, input=code.encode(), check=True, timeout=60)
    return path


@pytest.mark.parametrize(
    ("options", "linkage"),
    [
        ((), Linkage(LOADER, ("libc.so.6",))),
        (("-no-pie",), Linkage(LOADER, ("libc.so.6",))),
        (("-Wl,--no-as-needed", "-lm", "-lgcc_s"), Linkage(LOADER, ("libm.so.6", "libgcc_s.so.1", "libc.so.6"))),
        (("-static",), Linkage(None, ())),
        (("-static-pie",), Linkage(None, ())),
        (("-shared", "-fPIC", "-Wl,--no-as-needed"), Linkage(None, ("libc.so.6",))),
    ],
    ids=str,
)
def test_linkage(tmp_path: Path, options: tuple[str, ...], linkage: Linkage) -> None:
    assert linkage_of(compiled(tmp_path / "program", *options)) == linkage


@pytest.mark.parametrize("size", [0, 3, 20, 64, 700])
def test_what_is_no_whole_program_is_refused(tmp_path: Path, size: int) -> None:
    whole = compiled(tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:size])
    with pytest.raises(StepFailed, match="cut: is no ELF program of this architecture"):
        linkage_of(tmp_path / "cut")
    (tmp_path / "cut").write_bytes(b"#!/bin/sh\n" + whole)
    with pytest.raises(StepFailed, match="is no ELF program"):
        linkage_of(tmp_path / "cut")


def test_a_static_program_gets_nothing(tmp_path: Path) -> None:
    program = compiled(tmp_path / "linux", "-static")
    libraries.put_beside(program, compilers_library)
    assert [path.name for path in tmp_path.iterdir()] == ["linux"]
    assert libraries.loader_argv(program) == [str(program)]


def test_a_dynamic_program_gets_all_it_needs_and_runs_with_it(tmp_path: Path) -> None:
    program = compiled(tmp_path / "linux", "-Wl,--no-as-needed", "-lm")
    libraries.put_beside(program, compilers_library)
    found = {path.name: path.lstat().st_mode & 0o177777 for path in (tmp_path / "lib").iterdir()}
    assert found == {
        "ld-linux-x86-64.so.2": 0o100755, "libc.so.6": 0o100644, "libgcc_s.so.1": 0o100644, "libm.so.6": 0o100644,
    }  # fmt: skip
    assert (tmp_path / "interpreter").read_text() == f"{LOADER}\n"
    listed = process.output([*libraries.loader_argv(program)[:-1], "--list", str(program)])
    assert [line for line in listed.splitlines() if "=>" in line and f"{tmp_path}/lib/" not in line] == []
    process.run(libraries.loader_argv(program), log=None, timeout_s=30)


def test_the_identity_of_a_library_is_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    library = tmp_path / "libx.so.1"

    def find(name: str) -> Path | None:
        asked.append(name)
        return library if library.exists() else None

    monkeypatch.setattr("umlbuild.host.identity.compilers_library", find)
    cache = tmp_path / "cache"
    assert Identities(cache).of("libx.so.1") == "libx.so.1: none"
    library.write_bytes(b"one")
    first = Identities(cache).of("libx.so.1")
    assert first.startswith("libx.so.1 sha256:")
    assert Identities(cache).of("libx.so.1") == first
    assert asked == ["libx.so.1"] * 2, "what is known is not asked of the compiler again"
    library.write_bytes(b"other bytes")
    assert Identities(cache).of("libx.so.1") != first


@pytest.mark.parametrize(
    ("version", "static"),
    [("6 1", False), ("6 19", False), ("7 0", True), ("7 3", True), ("10 0", True)],
)
def test_which_kernels_are_static(tmp_path: Path, version: str, static: bool) -> None:
    major, minor = version.split()
    (tmp_path / "Makefile").write_text(
        f"# SPDX\nVERSION = {major}\nPATCHLEVEL = {minor}\nSUBLEVEL = 4\nEXTRAVERSION =\nKERNELVERSION = $(VERSION)\n"
    )
    assert links_statically(tmp_path) == static


def test_a_tree_that_tells_no_version(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = $(x)\n")
    with pytest.raises(StepFailed, match=r"Makefile tells no kernel version \(PATCHLEVEL\)"):
        links_statically(tmp_path)


ASKED = Wishes(suite="bookworm", components=("main",), variant="minbase", packages=(), tools_suite="trixie", tools=())


@pytest.mark.parametrize(
    ("newer", "moved"),
    [("ldd", {"kernel"}), ("libgcc_s.so.1", {"kernel"}), ("gcc", {"kernel_config", "kernel"}), ("cc1", set())],
)
def test_what_is_linked_in_is_in_the_kernels_key(tmp_path: Path, newer: str, moved: set[str]) -> None:
    tree = {"kind": "tree", "path": "linux"}
    data = {"format": 1, "name": "demo", "kernel": {"source": tree}, "rootfs": {}, "image": {"kind": "ext4"}}
    recipe = parse(data, "demo.toml")
    (tmp_path / "linux").mkdir()
    (tmp_path / "linux/Makefile").write_text("VERSION = 7\n")

    def keys(identity: Identity) -> dict[str, str]:
        step = kernel_step(recipe, Lock(asked=ASKED), Files(tmp_path, "demo.toml"), identity)
        return {below.stage: below.key for below in step.walk()}

    before = keys(lambda name: f"{name} 1")
    after = keys(lambda name: f"{name} {2 if name == newer else 1}")
    assert {stage for stage in before if before[stage] != after[stage]} == moved
