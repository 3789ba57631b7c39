"""What differs between two keys' identities, field by field, worded for people. Pure.

Lists are compared by what their items are called (a package by its name, a file by its path), so that one package
more is one line and not a hundred that moved.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_NAMES = ("path", "name", "interface")
"""Fields that tell which item of a list one is; a list's items have unique ones or are compared in order."""
_SHOWN = 72
_LINES = 6


@dataclass(frozen=True)
class Change:
    """One field that is another one now."""

    field: str
    """Where in the identity: "spec.entries[/etc/hostname].content", "inputs.root", "tools"."""
    old: str | None
    """As shown; None: there was none."""
    new: str | None
    """As shown; None: there is none any more."""

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.field}: added {self.new}" if self.new else f"{self.field}: added"
        if self.new is None:
            return f"{self.field}: removed {self.old}" if self.old else f"{self.field}: removed"
        return f"{self.field}: {self.old} → {self.new}"


def changes(old: object, new: object, files: Mapping[str, str] | None = None, field: str = "") -> Iterator[Change]:
    """What differs between two JSON values; `files` tells the names of the user's files by their digests."""
    files = files or {}
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        if pin := _pin(old, new):
            yield Change(field, *pin)
            return
        for name in [*old, *(name for name in new if name not in old)]:
            below = f"{field}.{name}" if field else name
            yield from _pair(old.get(name), new.get(name), files, below)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _lists(old, new, files, field)
    elif isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        yield from _texts(old, new, field)
    else:
        if isinstance(old, str) and isinstance(new, str) and old not in files and new not in files:
            old, new = _apart(old, new)
        yield Change(field, _shown(old, files), _shown(new, files))


def _pair(old: object, new: object, files: Mapping[str, str], field: str) -> Iterator[Change]:
    """As `changes`; None stands for a field that is not there."""
    if old is None and new is not None:
        yield Change(field, None, _shown(new, files))
    elif new is None and old is not None:
        yield Change(field, _shown(old, files), None)
    else:
        yield from changes(old, new, files, field)


def _lists(old: list[object], new: list[object], files: Mapping[str, str], field: str) -> Iterator[Change]:
    before, after = _by_name(old), _by_name(new)
    if before is None or after is None:
        if len(old) == len(new):
            for at, (one, other) in enumerate(zip(old, new, strict=True)):
                yield from changes(one, other, files, f"{field}[{at}]")
        else:
            yield Change(field, _shown(old, files), _shown(new, files))
        return
    for name in [*before, *(name for name in after if name not in before)]:
        yield from _pair(before.get(name), after.get(name), files, f"{field}[{_cut(name)}]")
    if list(before) != list(after) and sorted(before) == sorted(after):
        yield Change(field, "one order", "another")


def _by_name(items: Sequence[object]) -> dict[str, object] | None:
    """The items by what they are called; None if they have no names, or the same."""
    found: dict[str, object] = {}
    for item in items:
        name: str
        value: object
        match item:
            case str():
                name, value = item, ""
            case [str() as name, value]:
                pass
            case dict():
                name = next((item[key] for key in _NAMES if isinstance(item.get(key), str)), "")
                value = item
            case _:
                return None
        if not name or name in found:
            return None
        found[name] = value
    return found


def _pin(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, str] | None:
    """The versions of two pins of one package, if they differ."""
    versions = old.get("version"), new.get("version")
    if old.get("name") == new.get("name") and "sha256" in old and all(isinstance(v, str) for v in versions):
        return (str(versions[0]), str(versions[1])) if versions[0] != versions[1] else None
    return None


def _texts(old: str, new: str, field: str) -> Iterator[Change]:
    """The lines that differ, a pair for each place."""
    before, after = old.splitlines(), new.splitlines()
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    told = 0
    for what, start, end, from_, to in blocks:
        if what == "equal":
            continue
        if told == _LINES:
            yield Change(field, "…", "more lines differ")
            return
        told += 1
        one, other = _apart(*(" ⏎ ".join(lines) for lines in (before[start:end], after[from_:to])))
        yield Change(
            f"{field}, line {from_ + 1}",
            repr(_cut(one)) if end > start else None,
            repr(_cut(other)) if to > from_ else None,
        )


def _shown(value: object, files: Mapping[str, str]) -> str:
    match value:
        case str() if value in files:
            return f"{files[value]} ({value[:12]})"
        case str() if len(value) == 64 and set(value) <= set("0123456789abcdef"):
            return value[:12]
        case str():
            return repr(_cut(value)) if value else ""
        case dict():
            if "version" in value and "name" in value:
                return str(value["version"])
            kept = {name: item for name, item in value.items() if name not in _NAMES}
            return _cut(", ".join(f"{name} {_shown(item, files)}" for name, item in kept.items()))
        case list():
            return _cut("[" + ", ".join(_shown(item, files) for item in value) + "]")
        case _:
            return str(value)


def _apart(old: str, new: str) -> tuple[str, str]:
    """Two texts, without most of the long beginning that they share: what differs must be among what is shown."""
    same = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    if same < _SHOWN // 2 or not (old and new):
        return old, new
    return f"…{old[same - _SHOWN // 4 :]}", f"…{new[same - _SHOWN // 4 :]}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
