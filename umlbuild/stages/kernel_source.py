"""The kernel-source stage: a package, a tarball or a user's tree becomes `linux/`, patched.

A user's tree is never written to: it is copied if there are patches, and not touched otherwise.
Of an archive only what a UML build can read is unpacked (unless patches could touch the rest).

Source: measured on linux-source-7.3: 1.8 GB unpacked, of which 493 MB are AMD's register headers, 150 MB
other architectures, 83 MB documentation and 87 MB selftests and perf; no Kconfig file, Makefile or
header that ARCH=um reads is among them (every Kconfig file stays).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import HostError, StepFailed
from umlbuild.host import fetch, process
from umlbuild.specs.kernel import DebSource, KernelSourceSpec, TarballSource, TreeSource
from umlbuild.stages.context import Context

_UNPACK_S = 3600
_DECOMPRESS: Mapping[str, tuple[str, ...]] = {
    "xz": ("xz", "-dc", "-T0"),
    "gz": ("gzip", "-dc"),
    "zst": ("zstd", "-dcq"),
}
_PACKAGES = {
    "xz": "xz-utils", "gzip": "gzip", "zstd": "zstd", "patch": "patch", "dpkg-deb": "dpkg", "tar": "tar",
}  # fmt: skip

_LEFT_OUT = (
    # UML on x86 reads arch/um and arch/x86, and of the others only the Kconfig files in crypto/.
    "arch/[a-t]*/[!Kc]*", "arch/[a-t]*/c[!r]*", "arch/xtensa/[!K]*",
    # Only the Kconfig file of the directory is read.
    "Documentation/[a-z]*", "Documentation/[A-Z]*/*",
    # Generated register lists of one driver, which needs a real GPU.
    "drivers/gpu/drm/amd/include/asic_reg",
    # Programs of the host that are no part of a kernel.
    "tools/testing/selftests", "tools/perf",
)  # fmt: skip


def run(spec: KernelSourceSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out` with `linux/`; with nothing for a tree that is used in place."""
    tree = out / "linux"
    match spec.source:
        case DebSource(pin=pin):
            _unpack_package(inputs["packages"] / "pool" / pin.filename, tree, spec, context)
        case TarballSource(compression=compression) as source:
            tarball = _tarball(source, context)
            context.note("unpacking")
            _unpack([[*_DECOMPRESS[compression], os.fspath(tarball)]], tree, spec, context)
        case TreeSource(digest=name):
            if not spec.patches:
                return
            context.note("copying the tree")
            _copy(context.source(name, "kernel.source.path"), tree)
    if not (tree / "Makefile").is_file() or not (tree / "arch/um/Kconfig").is_file():
        raise StepFailed("unpacking the kernel source: it has no Makefile or no arch/um, so it is no kernel")
    for number, patch in enumerate(spec.patches):
        _patch(tree, context.source(patch, f"kernel.patches[{number}]"), number, context)


def _unpack_package(package: Path, tree: Path, spec: KernelSourceSpec, context: Context) -> None:
    """A linux-source-X.Y package holds one tarball, /usr/src/linux-source-X.Y.tar.xz."""
    context.note("unpacking")
    _need("dpkg-deb")
    _unpack(
        [
            ["dpkg-deb", "--fsys-tarfile", os.fspath(package)],
            ["tar", "-xO", "--wildcards", "./usr/src/linux-source-*.tar.xz"],
            list(_DECOMPRESS["xz"]),
        ],
        tree, spec, context,
    )  # fmt: skip


def _tarball(source: TarballSource, context: Context) -> Path:
    """The tarball on this machine, its digest checked."""
    local = context.sources.get(source.sha256)
    if local is None:
        suffix = f".tar.{source.compression}"
        return context.kept_downloads.tarball(source.url, source.sha256, suffix, _told(context), context.note)
    got = digest.of_file(local)
    if got != source.sha256:
        raise StepFailed(f"{local}: its sha256 is {got}, but {source.sha256} was promised")
    return local


def _told(context: Context) -> fetch.Progress:
    def progress(have: int, total: int) -> None:
        of = f" of {total >> 20}" if total else ""
        context.note(f"{have >> 20}{of} MiB")

    return progress


def _unpack(producer: list[list[str]], tree: Path, spec: KernelSourceSpec, context: Context) -> None:
    """Pipe programs that write a tar into a tar that unpacks it; its one directory becomes `tree`."""
    for argv in producer:
        _need(argv[0])
    unpacked = tree.with_name(".unpacked")
    unpacked.mkdir()
    # A patch (a stable release's, say) may touch any file, so then nothing is left out.
    names = [] if spec.patches else [f"{top}/{name}" for name in _LEFT_OUT for top in ("*", "./*")]
    argv = [
        "tar", "-x", "-C", os.fspath(unpacked), "--no-same-owner", "--preserve-permissions", "--anchored",
        "--no-wildcards-match-slash", *(f"--exclude={name}" for name in names),
    ]  # fmt: skip
    context.pipeline([*producer, argv], timeout_s=_UNPACK_S)
    found = list(unpacked.iterdir())
    if len(found) != 1:
        raise StepFailed(f"unpacking the kernel source: {len(found)} things at its top, not one directory")
    found[0].rename(tree)
    unpacked.rmdir()


def _copy(source: Path, tree: Path) -> None:
    def ignored(directory: str, names: list[str]) -> set[str]:
        return {".git"} & set(names) if Path(directory) == source else set()

    shutil.copytree(source, tree, symlinks=True, ignore=ignored)


def _patch(tree: Path, patch: Path, number: int, context: Context) -> None:
    """Apply one patch. Raises: StepFailed with patch's own words about the hunks that failed."""
    _need("patch")
    told = context.work / f"patch-{number}.txt"
    argv = [
        "patch", "-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-d", os.fspath(tree),
        "-i", os.fspath(patch.resolve()),
    ]  # fmt: skip
    status = context.run(argv, timeout_s=600, stdout=told, ok=(0, 1, 2))
    if status:
        lines = "\n".join(f"  | {line}" for line in told.read_text(errors="replace").splitlines()[-20:])
        raise StepFailed(
            f"kernel.patches[{number}]: {patch.name} does not apply:\n{lines}",
            "make the patch against this very source (paths a/… and b/…, patch -p1)",
        )


def _need(program: str) -> None:
    if process.find(program) is None:
        package = _PACKAGES[program]
        raise HostError(f"unpacking the kernel source: no {program}", f"apt-get install {package}")
