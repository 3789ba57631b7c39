"""systemd's units of a root, enabled and disabled in the archive as `systemctl --root` would do it.

Reads [Install] of the unit (and its drop-ins), makes or removes the symlinks below /etc/systemd/system.
A service that is only a script in /etc/init.d gets its runlevel links, which systemd-sysv-generator reads.

Source: systemctl(1), systemd.unit(5) "[Install] section options" and "Specifiers"; compared with
`systemctl --root` in the tests.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterator, Mapping

from umlbuild.errors import StepFailed
from umlbuild.host import initscripts
from umlbuild.host.names import nearest
from umlbuild.host.tree import Tree

_ETC = "/etc/systemd/system"
_PATHS = (_ETC, "/usr/local/lib/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
_SUFFIXES = (".service", ".socket", ".timer", ".target", ".path", ".mount", ".automount", ".swap", ".device")
_WANTS = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}
_MASK = "/dev/null"


def enable(tree: Tree, name: str) -> None:
    """Have a unit started at boot (or by what its [Install] says).

    Raises: StepFailed (no such unit, nothing to enable it by, masked).
    """
    if _only_script(tree, name):
        initscripts.enable(tree, name.removesuffix(".service"))
        return
    _enable(tree, _full(name), set())


def disable(tree: Tree, name: str) -> None:
    """Have a unit not started at boot. Raises: StepFailed (no such unit)."""
    if _only_script(tree, name):
        initscripts.disable(tree, name.removesuffix(".service"))
        return
    _disable(tree, _full(name), set())


def install_section(text: str) -> dict[str, list[str]]:
    """The words of each key of [Install]; an empty assignment clears what came before."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Install]" and line and line[0] not in "#;" and "=" in line:
            key, _, value = line.partition("=")
            words = shlex.split(value)
            found[key.strip()] = [*found.get(key.strip(), []), *words] if words else []
    return found


def _enable(tree: Tree, unit: str, done: set[str]) -> None:
    if unit in done:
        return
    done.add(unit)
    path = _find(tree, unit)
    rules = _rules(tree, unit, path)
    if not any(rules.get(key) for key in (*_WANTS, "Alias", "Also")):
        raise StepFailed(
            f"enabling {unit}: its [Install] section names nothing to start it by",
            f"have another unit want it, or add a drop-in {_ETC}/{unit}.d/install.conf",
        )
    prefix, instance, _ = _parts(unit)
    name = unit
    if "@" in unit and not instance:
        default = rules.get("DefaultInstance", [""])[0]
        if not default and any(rules.get(key) for key in _WANTS):
            raise StepFailed(f"enabling {unit}: it is a template", f"name an instance, like {prefix}@NAME")
        name = unit.replace("@.", f"@{default}.") if default else unit
    words = _specifiers(name)
    for key, kind in _WANTS.items():
        for target in _expanded(rules.get(key, []), words):
            _link(tree, f"{_ETC}/{target}.{kind}/{name}", path)
    for alias in _expanded(rules.get("Alias", []), words):
        if alias != name:
            _link(tree, f"{_ETC}/{alias}", path)
    for also in _expanded(rules.get("Also", []), words):
        if any(_rules(tree, also, _find(tree, also)).get(key) for key in (*_WANTS, "Alias", "Also")):
            _enable(tree, also, done)


def _disable(tree: Tree, unit: str, done: set[str]) -> None:
    if unit in done:
        return
    done.add(unit)
    rules = _rules(tree, unit, _find(tree, unit))
    gone = []
    for path in tree.below(_ETC):
        member = tree.get(f"/{path}", follow=False)
        if member is not None and member.kind == "symlink" and member.target != _MASK:
            points = posixpath.basename(member.target)
            if unit in (posixpath.basename(path), points):
                gone.append(f"/{path}")
    tree.remove(*gone)
    for also in _expanded(rules.get("Also", []), _specifiers(unit)):
        _disable(tree, also, done)


def _link(tree: Tree, at: str, path: str) -> None:
    old = tree.get(at, follow=False)
    if old is None or old.kind == "symlink":
        tree.put_symlink(at, path)
    else:
        raise StepFailed(f"enabling {posixpath.basename(path)}: {at} is a {old.kind} of the root")


def _find(tree: Tree, unit: str) -> str:
    """The path of the file of a unit, or of its template. Raises: StepFailed if there is none."""
    prefix, _, suffix = _parts(unit)
    names = [unit, f"{prefix}@{suffix}"] if "@" in unit else [unit]
    for name in names:
        for directory in _PATHS:
            member = tree.get(f"{directory}/{name}", follow=False)
            if member is None:
                continue
            if member.kind == "symlink" and member.target == _MASK:
                raise StepFailed(f"{unit}: is masked in this root", f"remove {directory}/{name}")
            if member.kind == "symlink" and directory == _ETC:
                continue  # an alias or an earlier enabling, not the unit itself
            return f"/{tree.resolve(directory)}/{name}"
    known = sorted({name for directory in _PATHS for name in tree.names(directory) if name.endswith(_SUFFIXES)})
    known += [f"{name}.service" for name in initscripts.names(tree)]
    raise StepFailed(f"there is no unit {unit!r} in the root{nearest(unit, known)}", "install the package that has it")


def _rules(tree: Tree, unit: str, path: str) -> Mapping[str, list[str]]:
    texts = [tree.text(path)]
    for directory in reversed(_PATHS):
        for name in tree.names(f"{directory}/{unit}.d"):
            if name.endswith(".conf"):
                texts.append(tree.text(f"{directory}/{unit}.d/{name}"))
    return install_section("\n".join(texts))


def _only_script(tree: Tree, name: str) -> bool:
    """Whether a service is a script of /etc/init.d and no unit."""
    base = name.removesuffix(".service")
    if base not in initscripts.names(tree):
        return False
    return not any(tree.get(f"{directory}/{base}.service", follow=False) for directory in _PATHS)


def _full(name: str) -> str:
    return name if name.endswith(_SUFFIXES) else f"{name}.service"


def _parts(unit: str) -> tuple[str, str, str]:
    """(prefix, instance, suffix with its dot)."""
    stem, dot, suffix = unit.rpartition(".")
    prefix, _, instance = stem.partition("@")
    return prefix, instance, dot + suffix


def _specifiers(unit: str) -> Mapping[str, str]:
    prefix, instance, _ = _parts(unit)
    return {"%n": unit, "%N": unit.rpartition(".")[0], "%p": prefix, "%i": instance, "%j": prefix.rpartition("-")[2]}


def _expanded(words: list[str], specifiers: Mapping[str, str]) -> Iterator[str]:
    for word in words:
        for mark, value in specifiers.items():
            word = word.replace(mark, value)
        yield word.replace("%%", "%")
