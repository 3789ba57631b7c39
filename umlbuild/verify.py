"""`umlbuild verify`: whether a release or an unpacked bundle is what its sums, its signature and its recipe say.

Needs no network but for `rebuild` where packages are not in the cache yet.
"""

from __future__ import annotations

import os
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umlbuild import digest
from umlbuild.errors import StepFailed, UserError
from umlbuild.host import archive, release, signing

MANIFEST = "manifest.toml"
_BLOCK = 1 << 20
Note = Callable[[str], None]


def is_release(path: Path) -> bool:
    """Whether a directory is a release; else it is a bundle. Raises: UserError if it is neither."""
    if (path / release.SUMS).is_file():
        return True
    if (path / MANIFEST).is_file():
        return False
    raise UserError(
        f"{path}: is neither a release ({release.SUMS}) nor a bundle ({MANIFEST})",
        "name a directory that `doit release` or `doit build` made",
    )


@contextmanager
def checked(path: Path, key: Path | None, note: Note) -> Iterator[Path]:
    """The bundle in a release (unpacked for as long as this lasts) or the bundle itself, with everything checked.

    Signature first, then sums, and only then is the archive opened. Raises: UserError, StepFailed that names all
    that is wrong.
    """
    if not is_release(path):
        if key is not None:
            raise UserError(f"{path}: a bundle has no signature, only its release has", "verify the release directory")
        _refuse(path, problems_of(path))
        note(f"{path}: all files are as its manifest says")
        yield path
        return
    if key is not None:
        note(f"{path}: signed by {signing.verify(path / release.SUMS, key)}")
    elif any(path.glob(f"{release.SUMS}.*")):
        note(f"{path}: the signature was not checked (--key FILE)")
    _refuse(path, release.problems_of(path))
    note(f"{path}: all files are as {release.SUMS} says")
    packed = release.archive_of(path)
    with tempfile.TemporaryDirectory(prefix="umlbuild-verify.", dir=os.environ.get("TMPDIR") or "/var/tmp") as name:
        work = Path(name)
        (into := work / "unpacked").mkdir()
        archive.unpack(packed, into, work)
        bundle = into / packed.name.removesuffix(".tar.zst")
        if [entry.name for entry in into.iterdir()] != [bundle.name] or not (bundle / MANIFEST).is_file():
            raise StepFailed(f"{packed}: does not hold the one directory {bundle.name} with a bundle")
        _refuse(packed, [*problems_of(bundle), *_unlike(path, bundle)])
        note(f"{packed.name}: all files are as its manifest says")
        yield bundle


def problems_of(bundle: Path) -> list[str]:
    """What of a bundle is not as its manifest says. Raises: StepFailed for what is no manifest."""
    files = manifest_of(bundle)["files"]
    problems = []
    for found in names_of(bundle):
        if found not in files and found != MANIFEST:
            problems.append(f"{found}: is not in {MANIFEST}")
    for name, facts in sorted(files.items()):
        path = bundle / name
        if not _is_plain(path, bundle):
            problems.append(f"{name}: is not there")
        elif path.stat().st_size != facts["size"]:
            problems.append(f"{name}: has {path.stat().st_size} bytes instead of {facts['size']}")
        elif digest.of_content(path, kind := digest.kind_in(facts)) != facts[kind]:
            problems.append(f"{name}: its {kind} is not the one in {MANIFEST}")
        elif f"{stat.S_IMODE(path.stat().st_mode):04o}" != facts["mode"]:
            problems.append(f"{name}: its mode is {stat.S_IMODE(path.stat().st_mode):04o} instead of {facts['mode']}")
    return problems


def manifest_of(bundle: Path) -> Mapping[str, Any]:
    """The manifest's data. Raises: StepFailed."""
    try:
        data = tomllib.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        for facts in data["files"].values():
            if [type(facts[key]) for key in (digest.kind_in(facts), "size", "mode")] != [str, int, str]:
                raise ValueError("sha256 (or pages), size and mode of each file are wanted")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise StepFailed(f"{bundle / MANIFEST}: is no manifest of a bundle ({error})") from error
    return data


def names_of(bundle: Path) -> list[str]:
    """The files (and whatever else is no directory) below a bundle, sorted."""
    return sorted(str(p.relative_to(bundle)) for p in bundle.rglob("*") if p.is_symlink() or not p.is_dir())


def first_difference(one: Path, other: Path) -> str:
    """Where two bundles differ first: file and byte offset; "" if they are equal. In order of names, but last what
    only tells of the others: `run`, which has their sums, and the manifest.
    """
    names = {*names_of(one), *names_of(other)}
    for name in sorted(names, key=lambda name: (name == MANIFEST, name == "run", name)):
        here, there = one / name, other / name
        if not there.is_file():
            return f"{name}: is not in the bundle that was built again"
        if not here.is_file():
            return f"{name}: is only in the bundle that was built again"
        if digest.of_content(here) != digest.of_content(there):
            return f"{name}: differs from byte {_offset(here, there)} on"
        if (modes := [stat.S_IMODE(path.stat().st_mode) for path in (here, there)])[0] != modes[1]:
            return f"{name}: has mode {modes[0]:04o}, built again {modes[1]:04o}"
    return ""


def _offset(one: Path, other: Path) -> int:
    at = 0
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            a, b = left.read(_BLOCK), right.read(_BLOCK)
            if a != b:
                return at + next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            if not a:
                return at
            at += len(a)


def _unlike(path: Path, bundle: Path) -> list[str]:
    return [
        f"{name}: is not the same beside the archive and in it"
        for name in release.DOCUMENTS
        if not (path / name).is_file() or (path / name).read_bytes() != (bundle / name).read_bytes()
    ]


def _is_plain(path: Path, bundle: Path) -> bool:
    inside = path.resolve().is_relative_to(bundle.resolve())
    return inside and path.is_file() and not path.is_symlink()


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        raise StepFailed("\n".join(f"{path}: {problem}" for problem in problems))
