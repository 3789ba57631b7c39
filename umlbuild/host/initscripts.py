"""sysvinit's services of a root: the links in /etc/rc?.d and the order in /etc/init.d/.depend.*.

Numbers follow the LSB headers as insserv computes them: a script has one more than the last that it
needs in the same directory. Without the .depend files startpar would not see a newly enabled script.

Source: insserv(8), init-d-script(5), LSB "Comment Conventions for Init Scripts"; compared with what
insserv itself made of a bookworm root with sysvinit-core.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from umlbuild.errors import StepFailed
from umlbuild.host.names import nearest
from umlbuild.host.tree import Tree

_INIT = "/etc/init.d"
_LEVELS = "S0123456"
_DEPEND = {"boot": ("S", "S"), "start": ("S", "12345"), "stop": ("K", "06")}
_LINK = re.compile(r"([SK])(\d\d)(.+)")
_HEADER = re.compile(r"^### BEGIN INIT INFO\n(.*?)^### END INIT INFO", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^#\s*([A-Za-z-]+):[ \t]*(.*)$", re.MULTILINE)
_ALL = "$all"


@dataclass(frozen=True)
class Script:
    """The LSB header of an init script."""

    provides: tuple[str, ...]
    start_after: tuple[str, ...]
    stop_before: tuple[str, ...]
    """What may be stopped only after this."""
    start_before: tuple[str, ...]
    start: str
    stop: str
    """Runlevels as letters, e.g. "2345"."""


def names(tree: Tree) -> list[str]:
    """The names of the services that are scripts with an LSB header."""
    return [name for name in tree.names(_INIT) if _header(tree, name) is not None]


def enable(tree: Tree, name: str) -> None:
    """Have a service started in its default runlevels. Raises: StepFailed (no such script)."""
    script = _script(tree, name)
    for level in script.start:
        _unlink(tree, level, name)
        tree.put_symlink(f"/etc/rc{level}.d/S01{name}", f"../init.d/{name}")
    for level in script.stop:
        _unlink(tree, level, name)
        tree.put_symlink(f"/etc/rc{level}.d/K01{name}", f"../init.d/{name}")
    _renumber(tree, script.start + script.stop)


def disable(tree: Tree, name: str) -> None:
    """Have a service not started; its stop links there say so, as after `update-rc.d disable`.

    Raises: StepFailed (no such script).
    """
    script = _script(tree, name)
    for level in script.start:
        _unlink(tree, level, name)
        tree.put_symlink(f"/etc/rc{level}.d/K01{name}", f"../init.d/{name}")
    _renumber(tree, script.start)


def header(text: str) -> Script | None:
    """The LSB header of a script's text, None without one."""
    found = _HEADER.search(text)
    if found is None:
        return None
    fields = {key.lower(): tuple(value.split()) for key, value in _FIELD.findall(found[1])}

    def words(*keys: str) -> tuple[str, ...]:
        return tuple(word for key in keys for word in fields.get(key, ()))

    return Script(
        provides=words("provides"),
        start_after=words("required-start", "should-start"),
        stop_before=words("required-stop", "should-stop"),
        start_before=words("x-start-before"),
        start="".join(word for word in words("default-start") if word in _LEVELS),
        stop="".join(word for word in words("default-stop") if word in _LEVELS),
    )


def numbers(after: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """1 for what comes after nothing, else one more than the last of what it comes after."""
    found: dict[str, int] = {}

    def number(name: str, path: tuple[str, ...]) -> int:
        if name not in found:
            above = [number(other, (*path, name)) for other in after[name] if other not in (*path, name)]
            found[name] = 1 + max(above, default=0)
        return found[name]

    for name in sorted(after):
        number(name, ())
    return found


def _script(tree: Tree, name: str) -> Script:
    script = _header(tree, name)
    if script is None:
        known = nearest(name, names(tree))
        raise StepFailed(f"there is no service {name!r} in {_INIT}{known}", "install the package that has it")
    return script


def _header(tree: Tree, name: str) -> Script | None:
    return header(tree.text(f"{_INIT}/{name}"))


def _unlink(tree: Tree, level: str, name: str) -> None:
    for link in tree.names(f"/etc/rc{level}.d"):
        found = _LINK.fullmatch(link)
        if found and found[3] == name:
            tree.remove(f"/etc/rc{level}.d/{link}")


def _renumber(tree: Tree, levels: str) -> None:
    """Give the links of some runlevels their numbers, and startpar its order."""
    scripts = {name: script for name in names(tree) if (script := _header(tree, name))}
    facilities = _facilities(tree)
    for level in levels:
        letter = "K" if level in "06" else "S"
        linked = _linked(tree, level, letter) & set(scripts)
        for name, number in numbers(_order(scripts, facilities, linked, letter)).items():
            _unlink(tree, level, name)
            tree.put_symlink(f"/etc/rc{level}.d/{letter}{number:02}{name}", f"../init.d/{name}")
    for kind, (letter, of_kind) in _DEPEND.items():
        if set(of_kind) & set(levels) and tree.get(f"{_INIT}/.depend.{kind}") is not None:
            linked = {name for level in of_kind for name in _linked(tree, level, letter)} & set(scripts)
            _write_depend(tree, kind, _order(scripts, facilities, linked, letter))


def _write_depend(tree: Tree, kind: str, after: Mapping[str, set[str]]) -> None:
    path = f"{_INIT}/.depend.{kind}"
    number = numbers(after)
    targets = sorted(after, key=lambda name: (number[name], name))
    lines = [f"TARGETS = {' '.join(targets)}"]
    lines += [line for line in tree.text(path).splitlines() if line.startswith("INTERACTIVE")]
    lines += [f"{name}: {' '.join(sorted(after[name]))}" for name in targets if after[name]]
    tree.replace(path, ("\n".join(lines) + "\n").encode())


def _linked(tree: Tree, level: str, letter: str) -> set[str]:
    found = (_LINK.fullmatch(link) for link in tree.names(f"/etc/rc{level}.d"))
    return {row[3] for row in found if row and row[1] == letter}


def _order(
    scripts: Mapping[str, Script], facilities: Mapping[str, tuple[str, ...]], linked: set[str], letter: str
) -> dict[str, set[str]]:
    """Script → the scripts among `linked` that it comes after."""
    providers: dict[str, str] = {}
    for name in sorted(linked):
        for word in (name, *scripts[name].provides):
            providers.setdefault(word, name)

    def expand(words: Iterable[str], seen: tuple[str, ...] = ()) -> set[str]:
        found: set[str] = set()
        for word in words:
            if word.startswith("$") and word not in seen:
                found |= expand(facilities.get(word, ()), (*seen, word))
            elif word in providers:
                found.add(providers[word])
        return found

    after: dict[str, set[str]] = {name: set() for name in linked}
    for name in linked:
        script = scripts[name]
        if letter == "S":
            after[name] |= expand(script.start_after)
            for other in expand(script.start_before):
                after[other].add(name)
            if _ALL in script.start_after:
                last = set(script.start)
                after[name] |= {
                    n for n in linked if last & set(scripts[n].start) and _ALL not in scripts[n].start_after
                }
        else:
            for other in expand(script.stop_before):
                after[other].add(name)
    return {name: others - {name} for name, others in after.items()}


def _facilities(tree: Tree) -> dict[str, tuple[str, ...]]:
    """`$name` → scripts (a `+` means: if there), from insserv's own configuration."""
    paths = ["/etc/insserv.conf", *(f"/etc/insserv.conf.d/{n}" for n in tree.names("/etc/insserv.conf.d"))]
    found: dict[str, tuple[str, ...]] = {}
    for path in paths:
        for line in tree.text(path).splitlines():
            words = line.split()
            if words and words[0].startswith("$"):
                found[words[0]] = found.get(words[0], ()) + tuple(word.lstrip("+") for word in words[1:])
    return found
