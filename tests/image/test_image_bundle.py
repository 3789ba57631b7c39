"""The bundle stage: what stands in a bundle, its manifest, the launcher's placeholders."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from umlbuild import __version__, digest
from umlbuild.errors import StepFailed
from umlbuild.host import seal, sums
from umlbuild.specs.bundle import BundleSpec, Source
from umlbuild.stages import bundle
from umlbuild.stages.context import Context

RECIPE = 'format = 1\nname = "m"\n\n[kernel]\noptions = { A = true }\n'
LAUNCHER = """#!/bin/sh
size=@IMAGE_SIZE@ mtime=@IMAGE_MTIME@ id=@IMAGE_ID@ release=@KERNEL_RELEASE@
disks="1:disk0.img:@DISK0_ID@:@DISK0_SIZE@:@DISK0_MTIME@ 11:disk10.img:@DISK10_ID@"
"""
SPEC = BundleSpec(name="m", launcher=LAUNCHER, cmdline="root=/dev/ubda rw", recipe=RECIPE, filter="0600000000000000")


def entries(where: Path) -> dict[str, Path]:
    inputs = {}
    for role, stamp in (("image", 11), ("disk0", 12), ("disk10", 13)):
        path = where / role
        path.mkdir(parents=True)
        image = path / "root.img"
        with image.open("wb") as file:
            os.truncate(file.fileno(), 1 << 20)
            file.write(role.encode())
        sums.of(image).write(path / seal.SUMS)
        image.chmod(0o444)
        os.utime(image, (stamp, stamp))
        inputs[role] = path
    kernel = where / "kernel"
    kernel.mkdir()
    (kernel / "linux").write_bytes(b"\x7fELF")
    (kernel / "release").write_text("7.3.4\n")
    return {**inputs, "kernel": kernel}


def run(spec: BundleSpec, inputs: dict[str, Path], out: Path) -> Path:
    out.mkdir()
    bundle.run(spec, inputs, out, Context(work=out.parent, log=out.parent / "log"))
    return out


def test_contents(tmp_path: Path) -> None:
    inputs = entries(tmp_path / "in")
    out = run(SPEC, inputs, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == [
        "disk0.img", "disk10.img", "linux", "manifest.toml", "recipe.lock.toml", "recipe.toml", "root.img", "run",
        "seccomp.bpf",
    ]  # fmt: skip
    modes = {path.name: path.stat().st_mode & 0o777 for path in out.iterdir()}
    assert modes["root.img"] == modes["disk0.img"] == 0o444
    assert modes["run"] == modes["linux"] == 0o755
    assert (out / "root.img").stat().st_ino == (inputs["image"] / "root.img").stat().st_ino
    sha = digest.of_image(out / "root.img")
    disk = digest.of_image(out / "disk0.img")
    assert (out / "run").read_text().splitlines()[1] == f"size={1 << 20} mtime=11 id={sha[:16]} release=7.3.4"
    assert f'disks="1:disk0.img:{disk[:16]}:{1 << 20}:12 11:disk10.img:' in (out / "run").read_text()


def test_manifest(tmp_path: Path) -> None:
    out = run(SPEC, entries(tmp_path / "in"), tmp_path / "out")
    manifest = tomllib.loads((out / "manifest.toml").read_text())
    assert manifest["format"] == 1
    assert manifest["name"] == "m"
    assert manifest["umlbuild"] == __version__
    assert manifest["kernel"] == {"release": "7.3.4", "command_line": "root=/dev/ubda rw"}
    assert manifest["recipe"] == tomllib.loads(RECIPE)
    assert sorted(manifest["files"]) == sorted(p.name for p in out.iterdir() if p.name != "manifest.toml")
    for name, facts in manifest["files"].items():
        info = (out / name).stat()
        assert facts[digest.kind_of(name)] == digest.of_content(out / name)
        assert facts["size"] == info.st_size
        assert facts["mode"] == f"{info.st_mode & 0o7777:04o}"


def test_same_bytes(tmp_path: Path) -> None:
    first = run(SPEC, entries(tmp_path / "a"), tmp_path / "one")
    before = os.umask(0o077)
    try:
        second = run(SPEC, entries(tmp_path / "b"), tmp_path / "two")
    finally:
        os.umask(before)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
        assert path.stat().st_mode == (second / path.name).stat().st_mode, path.name


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    inputs = entries(tmp_path / "in")
    (inputs["kernel"] / "linux").unlink()
    with pytest.raises(StepFailed, match="the kernel entry has no linux"):
        run(SPEC, inputs, tmp_path / "out")


def test_a_placeholder_that_nothing_fills_is_a_bug(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"launcher": "@DISK7_ID@"})
    with pytest.raises(AssertionError, match="@DISK7_ID@"):
        run(spec, entries(tmp_path / "in"), tmp_path / "out")


def test_the_files_that_the_recipe_names_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "motd"
    file.write_text("hello\n")
    sha = digest.of_file(file)
    sources = (
        Source(name="../motd", at="rootfs.files[0].source", kind="kept", sha256=sha),
        Source(name="hash", at="rootfs.users[0].password_file", kind="secret"),
    )
    spec = SPEC.model_copy(update={"sources": sources, "lock": "format = 1\n", "built_with": ("gcc 1",)})
    context = Context(work=tmp_path, log=tmp_path / "log", sources={sha: file})
    inputs = entries(tmp_path / "in")
    (out := tmp_path / "out").mkdir()
    bundle.run(spec, inputs, out, context)
    assert [path.name for path in (out / "sources").iterdir()] == [sha]
    assert (out / "sources" / sha).read_text() == "hello\n"
    assert (out / "recipe.lock.toml").read_text() == "format = 1\n"
    manifest = tomllib.loads((out / "manifest.toml").read_text())
    assert manifest["files"][f"sources/{sha}"]["mode"] == "0644"
    assert [row["kind"] for row in manifest["source"]] == ["kept", "secret"]
    assert manifest["source"][1]["sha256"] == "" and manifest["built_with"] == ["gcc 1"]
    file.write_text("changed meanwhile\n")
    (again := tmp_path / "again").mkdir()
    with pytest.raises(StepFailed, match="was changed while"):
        bundle.run(spec, inputs, again, context)
