"""Bundle: put kernel, images, launcher, recipe and manifest into one runnable directory.

Images are hard links to their store entries where that is possible, so a bundle costs no space.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from umlbuild import __version__, digest
from umlbuild.errors import StepFailed
from umlbuild.host import sparse
from umlbuild.specs.bundle import BundleSpec
from umlbuild.stages.context import Context

MANIFEST = "manifest.toml"
FORMAT = 1
"""Of the manifest; rises when a reader of the old one could be misled."""

_ID_DIGITS = 16
_PLACEHOLDER = re.compile(r"@[A-Z][A-Z0-9_]*@")


@dataclass(frozen=True)
class _File:
    name: str
    sha256: str
    size: int
    mode: str
    mtime: int


def run(spec: BundleSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out`. Raises: StepFailed if an input lacks a file."""
    images = {"root.img": _input(inputs, "image", "root.img")}
    for role in sorted((role for role in inputs if role.startswith("disk")), key=lambda role: int(role[4:])):
        images[f"{role}.img"] = _input(inputs, role, "root.img")
    files: list[_File] = []
    for name, source in images.items():
        context.note(name)
        sparse.link_or_copy(source, out / name)
        files.append(_described(out / name))
    release = _input(inputs, "kernel", "release").read_text().strip()
    sparse.copy(_input(inputs, "kernel", "linux"), out / "linux")
    values = {"KERNEL_RELEASE": release}
    for file in files:
        word = "IMAGE" if file.name == "root.img" else file.name.removesuffix(".img").upper()
        values |= {
            f"{word}_SIZE": str(file.size),
            f"{word}_MTIME": str(file.mtime),
            f"{word}_ID": file.sha256[:_ID_DIGITS],
        }
    (out / "run").write_text(_filled(spec.launcher, values))
    (out / "recipe.toml").write_text(spec.recipe)
    modes = {"linux": 0o755, "run": 0o755, "recipe.toml": 0o644}
    for name, mode in modes.items():
        (out / name).chmod(mode)
    files += [_described(out / name) for name in modes]
    (out / MANIFEST).write_text(_manifest(spec, release, files))
    (out / MANIFEST).chmod(0o644)


def _input(inputs: Mapping[str, Path], role: str, name: str) -> Path:
    path = inputs[role] / name
    if not path.is_file():
        raise StepFailed(f"putting the bundle together: the {role} entry has no {name}")
    return path


def _described(path: Path) -> _File:
    info = path.stat()
    mode = f"{info.st_mode & 0o7777:04o}"
    return _File(path.name, digest.of_immutable_file(path), info.st_size, mode, int(info.st_mtime))


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
            file.name: {"sha256": file.sha256, "size": file.size, "mode": file.mode}
            for file in sorted(files, key=lambda file: file.name)
        },
        "recipe": tomllib.loads(spec.recipe),
    })  # fmt: skip
