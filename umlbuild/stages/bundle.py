"""Bundle: put kernel, images, launcher, recipe and manifest into one runnable directory.

Images are hard links to their store entries where that is possible, so a bundle costs no space.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from umlbuild import __version__, digest
from umlbuild.errors import StepFailed
from umlbuild.host import cksum, seal, sparse, sums
from umlbuild.specs.bundle import BundleSpec
from umlbuild.stages.context import Context

MANIFEST = "manifest.toml"
HELPER = "jail"
SOURCES = "sources"
FORMAT = 1
"""Of the manifest; rises when a reader of the old one could be misled."""

_ID_DIGITS = 16
_MOST_RUNS = 100
"""For more, reading one after the other takes longer than reading all."""
_PLACEHOLDER = re.compile(r"@[A-Z][A-Z0-9_]*@")


@dataclass(frozen=True)
class _File:
    name: str
    content: str
    size: int
    mode: str
    mtime: int


def run(spec: BundleSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out`. Raises: StepFailed if an input lacks a file."""
    images = {seal.IMAGE: _input(inputs, "image", seal.IMAGE)}
    for role in sorted((role for role in inputs if role.startswith("disk")), key=lambda role: int(role[4:])):
        images[f"{role}.img"] = _input(inputs, role, seal.IMAGE)
    for name, source in images.items():
        context.note(name)
        sparse.link_or_copy(source, out / name)
    if "filters" in inputs:
        shutil.copytree(inputs["filters"] / "filters", out / "filters")
        (out / "filters").chmod(0o755)
    interpreter = _put_kernel(inputs["kernel"], out)
    if "helper" in inputs:
        sparse.copy(_input(inputs, "helper", HELPER), out / HELPER)
        (out / HELPER).chmod(0o755)
    for name, content in (
        ("recipe.toml", spec.recipe.encode()),
        ("recipe.lock.toml", spec.lock.encode()),
        ("seccomp.bpf", bytes.fromhex(spec.filter)),
    ):
        (out / name).write_bytes(content)
        (out / name).chmod(0o644)
    if spec.net:
        (out / "net").write_text(spec.net)
        (out / "net").chmod(0o755)
    _put_sources(spec, out, context)
    paths = [path for path in sorted(out.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor(1) as beside:  # both read whole images
        summed = beside.submit(_sums, out, [str(path.relative_to(out)) for path in paths], images)
        files = [_described(path, out) for path in paths]
    release = _input(inputs, "kernel", "release").read_text().strip()
    values = {
        "KERNEL_RELEASE": release,
        "INTERPRETER": interpreter,
        "SUMS": shlex.quote(summed.result()),
    }
    for file in files:
        if file.name in images:
            word = "IMAGE" if file.name == "root.img" else file.name.removesuffix(".img").upper()
            values |= {
                f"{word}_SIZE": str(file.size),
                f"{word}_MTIME": str(file.mtime),
                f"{word}_ID": file.content[:_ID_DIGITS],
            }
    (out / "run").write_text(_filled(spec.launcher, values))
    (out / "run").chmod(0o755)
    (out / MANIFEST).write_text(_manifest(spec, release, [*files, _described(out / "run", out)]))
    (out / MANIFEST).chmod(0o644)


def _sums(out: Path, names: Sequence[str], images: Mapping[str, Path]) -> str:
    """What cksum(1) says of the files; then, with first and count, of the runs of MiB of images that are no holes.

    The launcher reads all of them before the machine's first start: SHA-256 would take as long as a boot, and against
    somebody who can write the bundle it would not help either. Source: measured, image of 593 MB: sha256sum 2.3 s,
    cksum 0.05 s; but 0.5 to 6 s for the holes of 2 GiB, which take up as much memory.
    """
    rows: list[str] = []
    for name in names:
        if name not in images:
            rows.append(f"{cksum.of_file(out / name)} {name}")
            continue
        known = sums.read(images[name].with_name(seal.SUMS))
        rows.append(f"{known.cksum} {name}")
        runs = list(known.runs()) or [(0, 0)]
        if len(runs) <= _MOST_RUNS and sum(count for _, count in runs) * digest.CHUNK < known.size:
            rows += [f"{known.cksum_of(first, count)} {name} {first} {count}" for first, count in runs]
    return "\n".join(rows)


def _put_kernel(entry: Path, out: Path) -> str:
    """`linux`, and `lib/` of a dynamic one; returns the path at which that wants its loader, or ""."""
    sparse.copy(_input({"kernel": entry}, "kernel", "linux"), out / "linux")
    (out / "linux").chmod(0o755)
    if not (entry / "interpreter").exists():
        return ""
    (out / "lib").mkdir()
    (out / "lib").chmod(0o755)
    for library in sorted((entry / "lib").iterdir()):
        sparse.copy(library, out / "lib" / library.name)
        (out / "lib" / library.name).chmod(0o755)
    return (entry / "interpreter").read_text().strip()


def _put_sources(spec: BundleSpec, out: Path, context: Context) -> None:
    kept = {source.sha256: source.name for source in spec.sources if source.kind == "kept"}
    if kept:
        (out / SOURCES).mkdir()
        (out / SOURCES).chmod(0o755)
    for sha256, name in kept.items():
        shutil.copyfile(context.source(sha256, name), out / SOURCES / sha256)
        (out / SOURCES / sha256).chmod(0o644)
        if digest.of_file(out / SOURCES / sha256) != sha256:
            raise StepFailed(f"{name}: was changed while the bundle was built", "build again")


def _input(inputs: Mapping[str, Path], role: str, name: str) -> Path:
    path = inputs[role] / name
    if not path.is_file():
        raise StepFailed(f"putting the bundle together: the {role} entry has no {name}")
    return path


def _described(path: Path, base: Path) -> _File:
    info = path.stat()
    mode = f"{info.st_mode & 0o7777:04o}"
    return _File(str(path.relative_to(base)), digest.of_immutable_file(path), info.st_size, mode, int(info.st_mtime))


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    left = _PLACEHOLDER.findall(text)
    assert not left, f"the launcher has placeholders that nothing fills: {left}"
    return text


def _manifest(spec: BundleSpec, release: str, files: list[_File]) -> str:
    """The manifest's text; it cannot list itself."""
    return tomli_w.dumps({
        "format": FORMAT,
        "name": spec.name,
        "umlbuild": __version__,
        "kernel": {"release": release, "command_line": spec.cmdline},
        "files": {
            file.name: {digest.kind_of(file.name): file.content, "size": file.size, "mode": file.mode}
            for file in sorted(files, key=lambda file: file.name)
        },
        "built_with": list(spec.built_with),
        "source": [source.model_dump() for source in spec.sources],
        "recipe": tomllib.loads(spec.recipe),
    })  # fmt: skip
