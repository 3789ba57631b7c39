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
    Raises: UserError that names the nearest ones.
    """
    return [_find_recipe(word.strip(), directory) for word in words.split(",") if word.strip()]


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
