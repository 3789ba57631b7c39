"""`umlbuild vendor`: one directory with everything that the build of a recipe needs besides this machine's programs.

The directory is a project as any other: the recipe with its lock and files at the same places relative to each other,
and a `cache/` whose downloads are filled. So a build in it needs no option, no mirror and no network.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from umlbuild import lock as locks
from umlbuild import project
from umlbuild.errors import RecipeError, UserError
from umlbuild.host import fetch
from umlbuild.host.downloads import downloads_of
from umlbuild.lock import Lock
from umlbuild.recipe import Recipe
from umlbuild.specs.kernel import KernelSourceSpec, TarballSource

_AT_ONCE = 8
_README = "VENDORED.txt"

Note = Callable[[str], None]


def vendor(path: Path, target: Path, *, cache: Path, note: Note) -> Path:
    """Fill `target`, a directory that is not there or empty; where the recipe is in it.

    The lock is used, or written first if there is none (as a build does).

    Raises: RecipeError, LockError, FetchError, UserError (files at absolute paths, a target that is in use).
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: is there already", "name a new directory, or remove that one")
    recipe = project.read_recipe(path)
    lock = project.locked_or_resolved(path, recipe, cache=cache, note=note)
    plan, files = project.files_of(path, recipe, lock)
    if files.problems:
        raise RecipeError(files.problems)
    base = project.base_of(path)
    names = sorted({*(source.name for source in files.sources), *([base] if base else [])})
    top = _top(path, names)
    tarballs = [
        step.spec.source for step in plan.bundle.walk()
        if isinstance(step.spec, KernelSourceSpec) and isinstance(step.spec.source, TarballSource)
    ]  # fmt: skip
    part = target.with_name(f".{target.name}.part.{os.getpid()}")
    try:
        part.mkdir(parents=True)
        kept = _fetch(lock, recipe, tarballs, cache, note)
        for file in kept:
            _copy(file, part / "cache" / "downloads" / file.parent.name / file.name)
        where = path.parent.absolute().relative_to(top)
        for name in [path.name, locks.path_of(path).name, *names]:
            _copy(path.parent.absolute() / name, part / os.path.normpath(where / name))
        (part / _README).write_text(_readme(recipe.name, where / path.name))
        if target.exists():
            target.rmdir()
        part.rename(target)
    except OSError as error:
        raise UserError(f"{target}: {error.filename or ''}: {error.strerror}", "name another directory") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    note(f"{target} has {len(kept)} downloads, {sum(file.stat().st_size for file in kept) >> 20} MiB")
    return target / where / path.name


def _fetch(
    lock: Lock, recipe: Recipe, tarballs: Sequence[TarballSource], cache: Path, note: Note
) -> list[Path]:
    """Everything that is to be fetched, in the cache's downloads."""
    downloads = downloads_of(cache / "downloads")
    mirrors = project.mirrors_of(recipe, lock, cache)
    pins = sorted(lock.pins(), key=lambda pin: (-pin.size, pin.name))
    note(f"fetching {len(pins)} packages, {sum(pin.size for pin in pins) >> 20} MiB, as far as they are not here")
    once = functools.cache(note)  # all threads wait for the same host
    with fetch.connections(_AT_ONCE) as session, ThreadPoolExecutor(_AT_ONCE) as threads:
        rows = [threads.submit(downloads.package, pin, mirrors, session, once) for pin in pins]
        try:
            kept = [row.result() for row in rows]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return kept + [downloads.tarball(t.url, t.sha256, f".tar.{t.compression}", note=once) for t in tarballs]


def _top(path: Path, names: Sequence[str]) -> Path:
    """The directory that holds the recipe and all its files. Raises: UserError for files at absolute paths."""
    fixed = [name for name in names if Path(name).is_absolute()]
    if fixed:
        raise UserError(
            f"{path.name}: {', '.join(fixed)}: an absolute path is another place on another machine",
            "put it beside the recipe, and name it relative to that",
        )
    home = path.parent.absolute()
    return Path(os.path.commonpath([home, *(os.path.normpath((home / name).parent) for name in names)]))


def _copy(source: Path, target: Path) -> None:
    """A file or a tree; a repository's history is left out."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignored = shutil.ignore_patterns(".git")
        shutil.copytree(source, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
        target.chmod(source.stat().st_mode & 0o777 | 0o200)


def _readme(name: str, recipe: Path) -> str:
    return f"""\
Everything that the build of {name} fetches: its recipe, its lock, its files, and in cache/downloads/ every package
(and kernel tarball) by its sha256. Made by `umlbuild vendor`.

Build it in this directory, without any network:

    umlbuild build {shlex.quote(str(recipe))} --locked --offline

UMLBUILD_CACHE must not be set, or be this directory's cache/. Not in here: umlbuild with the Python packages that it
needs, the programs of the machine that builds (mmdebstrap, for a kernel from source a compiler), and passwords that
the recipe takes from the environment.
"""
