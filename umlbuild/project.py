"""From words a person typed to plans: finding recipes, reading them, resolving, planning.

This is where the pure parts (recipe, lock, plan) meet the machine (files, mirrors, clock).
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from umlbuild import lock as locks
from umlbuild.errors import RecipeError, UserError
from umlbuild.host.files import Files
from umlbuild.host.identity import Identities
from umlbuild.lock import Lock
from umlbuild.plan.bundle import Plan, plan_of
from umlbuild.plan.wishes import Wishes, wishes_of
from umlbuild.recipe import Recipe, load
from umlbuild.specs.filters import FiltersSpec
from umlbuild.specs.packages import DebPin

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

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError([f"{path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: not UTF-8 text (byte {error.start})"]) from error
    return load.load(text, path.name, read)


def read_lock(path: Path, recipe: Recipe) -> Lock | None:
    """The lock of a recipe, None if there is none or it answers other questions. Raises: LockError."""
    file = locks.path_of(path)
    try:
        lock = locks.parse(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError:
        return None
    return lock if lock.asked == wishes_of(recipe).asked() else None


def plan_recipe(path: Path, *, resolve: bool, note: Note, cache: Path) -> Plan:
    """The plan of a recipe; with `resolve`, a missing or outdated lock is made anew (this needs the network).

    Raises: RecipeError, LockError, FetchError, HostError.
    """
    recipe = read_recipe(path)
    lock = read_lock(path, recipe)
    if lock is None:
        if not resolve:
            raise UserError(f"{path.name}: nothing is resolved yet", f"run: doit build recipe={path.name}")
        lock = resolved(wishes_of(recipe), cache, note)
        _write(locks.path_of(path), locks.text_of(lock))
    return plan_with(recipe, path, lock, Files(path.parent.absolute(), path.name), cache)


def resolved(wishes: Wishes, cache: Path, note: Note) -> Lock:
    """The answers of Debian's archives, signatures checked. Raises: LockError, FetchError, HostError."""
    from umlbuild.host.apt import Apt, keyring, mirrors

    note(f"resolving the packages of {wishes.suite}")
    apt = Apt(
        cache=cache,
        mirrors=mirrors(wishes.mirror, os.environ),
        keyring=keyring(os.environ),
        architecture="amd64",
        components=wishes.components,
        note=note,
    )
    kernel: tuple[DebPin, ...] = ()
    if wishes.kernel is not None:
        wish = wishes.kernel
        name = wish.package or apt.newest(wish.suite, wish.pattern)
        libraries = (apt.pin(wish.suite, library) for library in wish.libraries or ())
        kernel = (apt.pin(wish.suite, name, wish.version), *libraries)
    if wishes.variant == "none":
        root = tuple(apt.pin(wishes.suite, name) for name in wishes.packages)
    else:
        root = apt.resolve(wishes.suite, wishes.variant, wishes.packages)
    tools = apt.closure(wishes.tools_suite, wishes.tools) if wishes.tools else ()
    filters = apt.closure(wishes.tools_suite, wishes.filters) if wishes.filters else ()
    return Lock(asked=wishes.asked(), kernel=kernel, rootfs=root, tools=tools, filters=filters)


class LazyMirrors(Mapping[str, str]):
    """The mirrors, asked of the host only when a step really fetches: a no-op build need not know them."""

    def __init__(self, explicit: str | None) -> None:
        self._explicit = explicit

    @cached_property
    def _found(self) -> Mapping[str, str]:
        from umlbuild.host.mirrors import mirrors

        return dict(mirrors(self._explicit, os.environ).items())

    def __getitem__(self, name: str) -> str:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def plan_with(recipe: Recipe, path: Path, lock: Lock, files: Files, cache: Path) -> Plan:
    """The plan of a recipe that was read, with this lock and these files. Raises: RecipeError, LockError."""
    identities = Identities(cache)
    plan = plan_of(recipe, lock, files, identities.of, path=path, mirrors=LazyMirrors(recipe.rootfs.mirror))
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

    if Store(cache).has(step.stage, step.key) or process.find(pcap.HOSTS[0]) is None:
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
