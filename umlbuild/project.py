"""From words a person typed to plans: finding recipes, reading them, resolving, planning.

This is where the pure parts (recipe, lock, plan) meet the machine (files, mirrors, clock).
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from umlbuild import lock as locks
from umlbuild.errors import LockError, RecipeError, UserError
from umlbuild.host.files import Files
from umlbuild.host.identity import Identities
from umlbuild.lock import Lock
from umlbuild.plan.bundle import Plan, plan_of
from umlbuild.plan.wishes import wishes_of
from umlbuild.recipe import Recipe, load
from umlbuild.specs.filters import FiltersSpec

Note = Callable[[str], None]


def cache_directory(project: Path) -> Path:
    """Where the store is: UMLBUILD_CACHE, or `cache/` of the project."""
    return Path(os.environ.get("UMLBUILD_CACHE") or project / "cache").absolute()


def all_recipes(directory: Path) -> list[Path]:
    """The recipes that lie in a directory or its `recipes/`; locks and fragments are none."""
    places = (directory, directory / "recipes")
    return [p for place in places for p in sorted(place.glob("*.toml")) if _looks_like_recipe(p)]


def find_recipes(words: str, directory: Path) -> list[Path]:
    """The recipes named by `recipe=…`: one or several names or paths joined by commas.

    A name is looked for in `directory` and its `recipes/`; ".toml" may be left out.
    Raises: UserError that names the nearest ones.
    """
    return [_find_recipe(word.strip(), directory) for word in words.split(",") if word.strip()]


def read_recipe(path: Path) -> Recipe:
    """A recipe of its file. Raises: RecipeError."""
    def read(name: str) -> str:
        return (path.parent / name).read_text(encoding="utf-8")

    return load.load(_text_of(path), path.name, read)


def base_of(path: Path) -> str | None:
    """The file that a recipe extends, relative to it. Raises: RecipeError."""
    name = load.data_of(_text_of(path), path.name).get("extends")
    return name if isinstance(name, str) else None


def any_lock(path: Path) -> Lock | None:
    """The lock beside a recipe, whatever it answers; None if there is none. Raises: LockError."""
    file = locks.path_of(path)
    try:
        return locks.parse(file.read_text(encoding="utf-8"), file, path.name)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{file}: cannot be read: {error}", f"write it anew: umlbuild lock {path.name}") from error


def read_lock(path: Path, recipe: Recipe) -> Lock | None:
    """The lock of a recipe, None if there is none or it answers other questions. Raises: LockError."""
    return _answering(any_lock(path), recipe)


def plan_recipe(path: Path, *, resolve: bool, note: Note, cache: Path, locked: bool = False) -> Plan:
    """The plan of a recipe; with `resolve`, a missing or outdated lock is made anew (this needs the network).

    With `locked` the lock must be there and answer what the recipe asks.

    Raises: RecipeError, LockError, FetchError, HostError.
    """
    recipe = read_recipe(path)
    if locked or not resolve:
        old = any_lock(path)
        lock = _answering(old, recipe)
        if locked and lock is None:
            raise _not_locked(path, recipe, old)
        if lock is None:
            raise UserError(f"{path.name}: nothing is resolved yet", f"run: doit build recipe={path.name}")
    else:
        lock = locked_or_resolved(path, recipe, cache=cache, note=note)
    return plan_with(recipe, path, lock, Files(path.parent.absolute(), path.name), cache)


def locked_or_resolved(path: Path, recipe: Recipe, *, cache: Path, note: Note) -> Lock:
    """The lock of a recipe; one that is missing or of another recipe is made, and written.

    Raises: LockError, FetchError, HostError.
    """
    old = any_lock(path)
    if (lock := _answering(old, recipe)) is not None:
        return lock
    from umlbuild.resolving import resolved

    lock = resolved(recipe, cache=cache, note=note, old=old)
    write_lock(path, lock)
    if old is not None:
        lines = locks.changes(old, lock) or ["no package changes"]
        note(f"{locks.path_of(path).name} follows the recipe:\n" + "\n".join(f"  {line}" for line in lines))
    return lock


def write_lock(path: Path, lock: Lock) -> None:
    """Put a lock beside its recipe, whole or not at all. Raises: UserError."""
    _write(locks.path_of(path), locks.text_of(lock))


def files_of(path: Path, recipe: Recipe, lock: Lock) -> tuple[Plan, Files]:
    """A recipe's plan without any check of this machine, and the files that it reads."""
    files = Files(path.parent.absolute(), path.name)
    plan = plan_of(recipe, lock, files, lambda program: program, path=path, mirrors={})
    return plan, files


def mirrors_of(recipe: Recipe, lock: Lock) -> LazyMirrors:
    """Where the packages of a lock are fetched from."""
    return LazyMirrors(recipe.rootfs.mirror, lock.moments())


class LazyMirrors(Mapping[str, str]):
    """The mirrors, asked of the host only when a step really fetches: a no-op build need not know them."""

    def __init__(self, explicit: str | None, moments: Mapping[str, Sequence[str]]) -> None:
        self._explicit = explicit
        self._moments = moments

    @cached_property
    def _found(self) -> Mapping[str, str]:
        from umlbuild.host.mirrors import mirrors, with_snapshots

        found: Mapping[str, str] = {str(name): urls for name, urls in mirrors(self._explicit, os.environ).items()}
        return {str(name): urls for name, urls in with_snapshots(found, self._moments, os.environ).items()}

    def __getitem__(self, name: str) -> str:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _answering(lock: Lock | None, recipe: Recipe) -> Lock | None:
    return lock if lock is not None and lock.asked == wishes_of(recipe) else None


def _not_locked(path: Path, recipe: Recipe, lock: Lock | None) -> LockError:
    file = locks.path_of(path).name
    if lock is None:
        return LockError(
            f"{path.name}: --locked, but there is no {file}", f"umlbuild lock {path.name}, and commit {file}"
        )
    rows = "\n".join(f"  {row}" for row in locks.disagreements(lock.asked, wishes_of(recipe)))
    return LockError(
        f"{path.name}: --locked, but {file} is of another recipe:\n{rows}",
        f"umlbuild lock {path.name}, and commit {file}",
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError([f"{path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: not UTF-8 text (byte {error.start})"]) from error


def plan_with(recipe: Recipe, path: Path, lock: Lock, files: Files, cache: Path) -> Plan:
    """The plan of a recipe that was read, with this lock and these files. Raises: RecipeError, LockError."""
    identities = Identities(cache)
    plan = plan_of(recipe, lock, files, identities.of, path=path, mirrors=mirrors_of(recipe, lock))
    if not files.problems:
        files.problems += _refused_filters(plan, path.name, cache)
    if files.problems:
        raise RecipeError(files.problems)
    return plan


def _refused_filters(plan: Plan, file: str, cache: Path) -> list[str]:
    """What libpcap has against the recipe's filters; asked only when they are still to be compiled.

    Without a libpcap on this machine nothing is known yet: `needs` says that it is missing, or installs it.
    """
    step = plan.bundle.inputs.get("filters")
    if step is None or "tools" not in step.inputs:
        return []
    from umlbuild.host import pcap, process
    from umlbuild.host.store import Store

    if Store.at(cache).has(step.stage, step.key) or process.find(pcap.HOSTS[0]) is None:
        return []
    assert isinstance(step.spec, FiltersSpec)
    return [f"{file}: {problem}" for problem in pcap.refusals(step.spec)]


def _find_recipe(word: str, directory: Path) -> Path:
    named = Path(word).expanduser()
    names = [named] if named.suffix == ".toml" else [named, named.with_name(f"{named.name}.toml")]
    for name in names:
        for place in (directory, directory / "recipes"):
            if (place / name).is_file():
                return place / name
    near = {path.name: path for path in all_recipes(directory)}
    close = difflib.get_close_matches(names[-1].name, near, n=1, cutoff=0.5)
    hint = f'did you mean "{close[0]}"?' if close else f"there are: {', '.join(near) or 'none'}"
    raise UserError(f"{word}: no such recipe in {directory} or its recipes/", hint)


def _looks_like_recipe(path: Path) -> bool:
    if path.name.endswith(".lock.toml") or path.name == "pyproject.toml":
        return False
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return any(line.replace(" ", "") == "format=1" for line in path.read_text("utf-8").splitlines()[:40])
    return False


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot write the lock: {error.strerror}", "make the recipe's directory writable"
        ) from error
