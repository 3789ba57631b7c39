"""From recipes to plans: reading them, resolving, planning.

This is where the pure parts (recipe, lock, plan) meet the machine (files, mirrors, clock).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from umlbuild import lock as locks
from umlbuild.errors import FetchError, LockError, RecipeError, UserError
from umlbuild.host import offline, records
from umlbuild.host.answers import Answers
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


def read_recipe(path: Path, answers: Answers | None = None) -> Recipe:
    """A recipe of its file. Raises: RecipeError."""
    asked = answers or Answers()

    def read(name: str) -> str:
        return asked.read(path.parent / name)

    return load.load(_text_of(path, asked), path.name, read)


def base_of(path: Path) -> str | None:
    """The file that a recipe extends, relative to it. Raises: RecipeError."""
    name = load.data_of(_text_of(path, Answers()), path.name).get("extends")
    return name if isinstance(name, str) else None


def any_lock(path: Path, answers: Answers | None = None) -> Lock | None:
    """The lock beside a recipe, whatever it answers; None if there is none. Raises: LockError."""
    file = locks.path_of(path)
    try:
        return locks.parse((answers or Answers()).read(file), file, path.name)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{file}: cannot be read: {error}", f"write it anew: umlbuild lock {path.name}") from error


def read_lock(path: Path, recipe: Recipe) -> Lock | None:
    """The lock of a recipe, None if there is none or it answers other questions. Raises: LockError."""
    return _answering(any_lock(path), recipe)


def plan_recipe(
    path: Path, *, resolve: bool, note: Note, cache: Path, locked: bool = False, answers: Answers | None = None
) -> Plan:
    """The plan of a recipe; with `resolve`, a missing or outdated lock is made anew (this needs the network).

    With `locked` the lock must be there and answer what the recipe asks. What the plan is made of goes into `answers`.

    Raises: RecipeError, LockError, FetchError, HostError.
    """
    asked = answers or Answers()
    recipe = read_recipe(path, asked)
    if locked or not resolve:
        old = any_lock(path, asked)
        lock = _answering(old, recipe)
        if lock is None and locked:
            hint = f"umlbuild lock {path.name}, and commit {locks.path_of(path).name}"
            raise _unanswered(path, recipe, old, hint, "--locked, but ")
        if lock is None:
            also = "" if old else f" (or: doit build recipe={path.name})"
            raise _unanswered(path, recipe, old, f"umlbuild lock {path.name}{also}")
    else:
        lock = locked_or_resolved(path, recipe, cache=cache, note=note, answers=asked)
    return plan_with(recipe, path, lock, Files(path.parent.absolute(), path.name, asked), cache)


def locked_or_resolved(
    path: Path, recipe: Recipe, *, cache: Path, note: Note, answers: Answers | None = None
) -> Lock:
    """The lock of a recipe; one that is missing or of another recipe is made, and written.

    Raises: LockError (also when offline, for one of another recipe), FetchError, HostError.
    """
    asked = answers or Answers()
    old = any_lock(path, asked)
    if (lock := _answering(old, recipe)) is not None:
        return lock
    from umlbuild.resolving import resolved

    try:
        lock = resolved(recipe, cache=cache, note=note, old=old)
    except FetchError as error:
        if old is None or not offline.is_offline():
            raise
        hint = f"with a network: umlbuild lock {path.name}"
        raise _unanswered(path, recipe, old, hint, "this build is offline, but ") from error
    write_lock(path, lock)
    asked.wrote(locks.path_of(path), locks.text_of(lock))
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


def mirrors_of(recipe: Recipe, lock: Lock, cache: Path) -> LazyMirrors:
    """Where the packages of a lock are fetched from."""
    return LazyMirrors(recipe.rootfs.mirror, lock.moments(), cache)


class LazyMirrors(Mapping[str, str]):
    """The mirrors, asked of the host only when a step really fetches: a no-op build need not know them."""

    def __init__(self, explicit: str | None, moments: Mapping[str, Sequence[str]], cache: Path) -> None:
        self._explicit = explicit
        self._moments = moments
        self._cache = cache

    @cached_property
    def _found(self) -> Mapping[str, str]:
        from umlbuild.host.mirrors import mirrors, with_snapshots

        here = mirrors(self._explicit, os.environ, self._cache)
        found: Mapping[str, str] = {str(name): urls for name, urls in here.items()}
        return {str(name): urls for name, urls in with_snapshots(found, self._moments, os.environ).items()}

    def __getitem__(self, name: str) -> str:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _answering(lock: Lock | None, recipe: Recipe) -> Lock | None:
    return lock if lock is not None and lock.asked == wishes_of(recipe) else None


def _unanswered(path: Path, recipe: Recipe, lock: Lock | None, hint: str, but: str = "") -> LockError:
    """There is no lock, or it is of another recipe: which questions disagree. `but` says why it is not made now."""
    file = locks.path_of(path).name
    if lock is None:
        return LockError(f"{path.name}: {but}there is no {file}", hint)
    rows = "\n".join(f"  {row}" for row in locks.disagreements(lock.asked, wishes_of(recipe)))
    return LockError(f"{path.name}: {but}{file} is of another recipe:\n{rows}", hint)


def _text_of(path: Path, answers: Answers) -> str:
    try:
        return answers.read(path)
    except OSError as error:
        raise RecipeError([f"{path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: not UTF-8 text (byte {error.start})"]) from error


def plan_with(recipe: Recipe, path: Path, lock: Lock, files: Files, cache: Path) -> Plan:
    """The plan of a recipe that was read, with this lock and these files. Raises: RecipeError, LockError."""
    identities = Identities(cache)

    def identity(program: str) -> str:
        return files.answers.put("program", program, identities.of(program))

    plan = plan_of(recipe, lock, files, identity, path=path, mirrors=mirrors_of(recipe, lock, cache))
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


def _write(path: Path, text: str) -> None:
    try:
        records.replace(path, text.encode())
    except OSError as error:
        raise UserError(
            f"{path}: cannot write the lock: {error.strerror}", "make the recipe's directory writable"
        ) from error
