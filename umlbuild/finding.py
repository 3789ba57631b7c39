"""Which recipes a person means: by name or path, in a directory and its `recipes/`."""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path

from umlbuild.errors import UserError


def all_recipes(directory: Path) -> list[Path]:
    """The recipes that lie in a directory or its `recipes/`; locks and fragments are none."""
    places = (directory, directory / "recipes")
    return [p for place in places for p in sorted(place.glob("*.toml")) if _looks_like_recipe(p)]


def find_recipes(words: str, directory: Path) -> list[Path]:
    """The recipes named by `recipe=…`: one or several names or paths joined by commas.

    A name is looked for in `directory` and its `recipes/`; ".toml" may be left out.
    Raises: UserError that names the nearest ones, or all if none is named.
    """
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise UserError("no recipe is named", _there_are(all_recipes(directory)))
    return [_found(name, directory) for name in names]


def find_recipe(words: str, directory: Path) -> Path:
    """The one recipe that is named, for what is done with one. Raises: UserError, also for several."""
    path, *more = find_recipes(words, directory)
    if more:
        raise UserError(f"{words}: this is done with one recipe at a time", f"name one of them, such as {path.name}")
    return path


def _found(word: str, directory: Path) -> Path:
    named = Path(word)
    with contextlib.suppress(RuntimeError):  # ~ of nobody
        named = named.expanduser()
    whole = named.suffix == ".toml" or not named.name  # "." and "/" have no name
    names = [named] if whole else [named, named.with_name(f"{named.name}.toml")]
    for name in names:
        for place in (directory, directory / "recipes"):
            if (place / name).is_file():
                return place / name
    there = all_recipes(directory)
    near = {path.stem: path.name for path in there}  # all end in .toml, which makes none more alike
    close = difflib.get_close_matches(names[-1].stem, near, n=1, cutoff=0.5)
    hint = f'did you mean "{near[close[0]]}"?' if close else _there_are(there)
    raise UserError(f"{word}: no such recipe in {directory} or its recipes/", hint)


def _there_are(paths: list[Path]) -> str:
    return f"there are: {', '.join(path.name for path in paths) or 'none'}"


def _looks_like_recipe(path: Path) -> bool:
    if path.name.endswith(".lock.toml") or path.name == "pyproject.toml":
        return False
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return any(line.replace(" ", "") == "format=1" for line in path.read_text("utf-8").splitlines()[:40])
    return False
