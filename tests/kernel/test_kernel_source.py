"""The kernel-source stage with a small tree: packages, tarballs, trees of the user's, patches."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import webkit

from umlbuild import digest
from umlbuild.errors import FetchError, HostError, StepFailed, ToolFailed
from umlbuild.host import fetch, process
from umlbuild.specs.kernel import DebSource, KernelSourceSpec, TarballSource, TreeSource
from umlbuild.specs.packages import DebPin
from umlbuild.stages import kernel_source
from umlbuild.stages.context import Context

FILES = {
    "Makefile": "VERSION = 7\n",
    "arch/Kconfig": "# all\n",
    "arch/um/Kconfig": "config UML\n",
    "arch/um/kernel/um_arch.c": "int x;\n",
    "arch/x86/um/Kconfig": "# x86\n",
    "arch/x86/crypto/aes.c": "",
    "arch/arm64/Kconfig": "# arm64\n",
    "arch/arm64/kernel/setup.c": "",
    "arch/arm64/crypto/Kconfig": "# sourced by crypto/Kconfig\n",
    "arch/arm64/configs/defconfig": "",
    "arch/xtensa/kernel/setup.c": "",
    "drivers/gpu/drm/amd/include/asic_reg/x.h": "",
    "drivers/gpu/drm/amd/include/y.h": "",
    "tools/testing/selftests/x.c": "",
    "tools/arch/arm64/include/x.h": "",
    "Documentation/Kconfig": "# doc\n",
    "Documentation/virt/uml/howto.rst": "",
    "Documentation/ABI/testing/x": "",
}
LEFT_OUT = {
    "arch/arm64/kernel/setup.c", "arch/arm64/configs/defconfig", "arch/xtensa/kernel/setup.c",
    "drivers/gpu/drm/amd/include/asic_reg/x.h", "tools/testing/selftests/x.c",
    "Documentation/virt/uml/howto.rst", "Documentation/ABI/testing/x",
}  # fmt: skip
PATCH = """\
--- a/Makefile
+++ b/Makefile
@@ -1 +1 @@
-VERSION = 7
+VERSION = 8
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "linux-7.3"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref\n")
    (root / "link").symlink_to("arch/um")
    return root


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "work").mkdir()
    return Context(work=tmp_path / "work", log=tmp_path / "log", sources={})


def packed(tree: Path, compression: str, top: str = "linux-7.3") -> Path:
    out = tree.parent / f"linux.tar.{compression}"
    program = {"xz": "xz", "gz": "gzip", "zst": "zstd"}[compression]
    tar = ["tar", "-C", str(tree.parent), "--exclude=.git", "-cf", str(out), "-I", program]
    subprocess.run([*tar, top], check=True, timeout=60)
    return out


def names(root: Path) -> set[str]:
    return {str(Path(d, f).relative_to(root)) for d, _, files in os.walk(root) for f in files}


def with_sources(context: Context, *files: Path) -> tuple[Context, list[str]]:
    digests: list[str] = [digest.of_tree(file) if file.is_dir() else digest.of_file(file) for file in files]
    sources = dict(zip(digests, files, strict=True))
    return Context(work=context.work, log=context.log, sources=sources), digests


@pytest.mark.parametrize("compression", ["xz", "gz", "zst"])
@pytest.mark.parametrize("top", ["linux-7.3", "./linux-7.3"])
def test_tarball_on_this_machine(
    tree: Path, tmp_path: Path, context: Context, compression: str, top: str
) -> None:
    context, [sha] = with_sources(context, packed(tree, compression, top))
    source = TarballSource.model_validate({"url": "x", "sha256": sha, "compression": compression})
    out = tmp_path / "out"
    out.mkdir()
    kernel_source.run(KernelSourceSpec(source=source), {}, out, context)
    assert names(out / "linux") == set(FILES) - LEFT_OUT
    assert (out / "linux/link").is_symlink()
    assert (out / "linux/arch/um/Kconfig").read_text() == "config UML\n"


def test_with_patches_nothing_is_left_out(tree: Path, tmp_path: Path, context: Context) -> None:
    patch = tmp_path / "version.patch"
    patch.write_text(PATCH)
    context, [sha, patched] = with_sources(context, packed(tree, "xz"), patch)
    source = TarballSource(url="x", sha256=sha, compression="xz")
    out = tmp_path / "out"
    out.mkdir()
    kernel_source.run(KernelSourceSpec(source=source, patches=(patched,)), {}, out, context)
    assert names(out / "linux") == set(FILES)
    assert (out / "linux/Makefile").read_text() == "VERSION = 8\n"


def test_package(tree: Path, tmp_path: Path, context: Context) -> None:
    root = tmp_path / "deb"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: linux-source-7.3\nVersion: 7.3.4-1\nArchitecture: all\nMaintainer: x <x@example>\nDescription: x\n"
    )
    (root / "usr/src").mkdir(parents=True)
    packed(tree, "xz").rename(root / "usr/src/linux-source-7.3.tar.xz")
    (root / "usr/src/linux-patch-7.3-rt.patch.xz").write_text("")
    pool = tmp_path / "entry/pool"
    pool.mkdir(parents=True)
    name = "linux-source-7.3_7.3.4-1_all.deb"
    build = ["dpkg-deb", "--root-owner-group", "-b", str(root), str(pool / name)]
    subprocess.run(build, check=True, timeout=60, stdout=subprocess.DEVNULL)
    pin = DebPin(
        name="linux-source-7.3", version="7.3.4-1", architecture="all", size=1, sha256="0" * 64,
        path=f"pool/main/l/linux/{name}",
    )  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    kernel_source.run(KernelSourceSpec(source=DebSource(pin=pin)), {"packages": tmp_path / "entry"}, out, context)
    assert names(out / "linux") == set(FILES) - LEFT_OUT


def test_a_tree_without_patches_is_used_in_place(tree: Path, tmp_path: Path, context: Context) -> None:
    context, [name] = with_sources(context, tree)
    out = tmp_path / "out"
    out.mkdir()
    kernel_source.run(KernelSourceSpec(source=TreeSource(digest=name)), {}, out, context)
    assert list(out.iterdir()) == []


def test_a_tree_with_patches_is_copied_and_stays_as_it_was(
    tree: Path, tmp_path: Path, context: Context
) -> None:
    patch = tmp_path / "version.patch"
    patch.write_text(PATCH)
    context, [name, patched] = with_sources(context, tree, patch)
    out = tmp_path / "out"
    out.mkdir()
    kernel_source.run(KernelSourceSpec(source=TreeSource(digest=name), patches=(patched,)), {}, out, context)
    assert digest.of_tree(tree) == name
    assert (out / "linux/Makefile").read_text() == "VERSION = 8\n"
    assert names(out / "linux") == set(FILES), ".git is not copied"


def test_a_patch_that_does_not_apply_is_named_with_its_hunks(
    tree: Path, tmp_path: Path, context: Context
) -> None:
    good = tmp_path / "good.patch"
    good.write_text(PATCH)
    bad = tmp_path / "bad.patch"
    bad.write_text(PATCH.replace("VERSION = 7", "VERSION = 5"))
    bad.write_text(bad.read_text().replace("VERSION = 8", "VERSION = 6"))
    context, [name, *patches] = with_sources(context, tree, good, bad)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StepFailed) as caught:
        kernel_source.run(
            KernelSourceSpec(source=TreeSource(digest=name), patches=tuple(patches)), {}, out, context
        )
    assert caught.value.message.startswith("kernel.patches[1]: bad.patch does not apply:")
    assert "Hunk #1 FAILED at 1" in caught.value.message
    assert "-p1" in caught.value.hint


def test_other_bytes_than_promised_are_refused(tree: Path, tmp_path: Path, context: Context) -> None:
    tarball = packed(tree, "xz")
    promised = "0" * 64
    context = Context(work=context.work, log=context.log, sources={promised: tarball})
    source = TarballSource(url="x", sha256=promised, compression="xz")
    with pytest.raises(StepFailed) as caught:
        kernel_source.run(KernelSourceSpec(source=source), {}, tmp_path, context)
    assert promised in caught.value.message and digest.of_file(tarball) in caught.value.message


def test_a_download_that_cannot_be(tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    source = TarballSource(url="http://127.0.0.1:1/l.tar.xz", sha256="0" * 64, compression="xz")
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:1"):
        kernel_source.run(KernelSourceSpec(source=source), {}, tmp_path, context)
    assert [path for path in context.work.rglob("*") if path.is_file()] == []


def test_what_is_no_kernel_is_refused(tree: Path, tmp_path: Path, context: Context) -> None:
    shutil.rmtree(tree / "arch")
    context, [sha] = with_sources(context, packed(tree, "gz"))
    source = TarballSource(url="x", sha256=sha, compression="gz")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StepFailed, match="it has no Makefile or no arch/um"):
        kernel_source.run(KernelSourceSpec(source=source), {}, out, context)


def test_a_damaged_tarball_is_a_failure_of_the_tool(tree: Path, tmp_path: Path, context: Context) -> None:
    tarball = packed(tree, "xz")
    tarball.write_bytes(tarball.read_bytes()[:-40])
    context, [sha] = with_sources(context, tarball)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ToolFailed) as caught:
        kernel_source.run(
            KernelSourceSpec(source=TarballSource(url="x", sha256=sha, compression="xz")), {}, out, context
        )
    assert caught.value.argv[0] in ("xz", "tar")


def test_a_missing_program_is_named(
    tree: Path, tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, [sha] = with_sources(context, packed(tree, "zst"))
    find = process.find
    monkeypatch.setattr(process, "find", lambda name: None if name == "zstd" else find(name))
    with pytest.raises(HostError) as caught:
        kernel_source.run(
            KernelSourceSpec(source=TarballSource(url="x", sha256=sha, compression="zst")), {}, tmp_path, context
        )
    assert caught.value.hint == "apt-get install zstd"


@pytest.mark.parametrize("compression", ["xz", "gz", "zst"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_goes_on_where_it_broke(
    tree: Path, tmp_path: Path, context: Context, compression: str, ranges: bool
) -> None:
    (tree / "noise").write_bytes(os.urandom(900_000))
    tarball = packed(tree, compression)
    source = TarballSource.model_validate(
        {"url": "", "sha256": digest.of_file(tarball), "compression": compression}
    )
    out = tmp_path / "out"
    out.mkdir()
    with webkit.serving(tmp_path, cut_once_at=600_000, ranges=ranges) as server:
        source = source.model_copy(update={"url": f"{server.url}/{tarball.name}"})
        kernel_source.run(KernelSourceSpec(source=source), {}, out, context)
    assert webkit.resumed_near(server.ranges, 600_000)
    assert names(out / "linux") == {*FILES, "noise"} - LEFT_OUT


def test_a_download_of_other_bytes_names_both_digests_and_keeps_nothing(
    tree: Path, tmp_path: Path, context: Context
) -> None:
    tarball = packed(tree, "xz")
    out = tmp_path / "out"
    out.mkdir()
    with webkit.serving(tmp_path) as server:
        source = TarballSource(url=f"{server.url}/{tarball.name}", sha256="0" * 64, compression="xz")
        with pytest.raises(FetchError) as caught:
            kernel_source.run(KernelSourceSpec(source=source), {}, out, context)
    assert "0" * 64 in caught.value.message and digest.of_file(tarball) in caught.value.message
    assert [path for where in (out, context.work) for path in where.rglob("*") if path.is_file()] == []


def test_a_tarball_that_the_server_does_not_have(tmp_path: Path, context: Context) -> None:
    with webkit.serving(tmp_path) as server:
        source = TarballSource(url=f"{server.url}/gone.tar.xz", sha256="0" * 64, compression="xz")
        with pytest.raises(FetchError, match=r"gone\.tar\.xz: the server answers 404"):
            kernel_source.run(KernelSourceSpec(source=source), {}, tmp_path, context)
    assert server.ranges == [None], "not tried again"
