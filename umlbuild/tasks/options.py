"""Options after a verb: doit's run options (`doit build -n 2`, where doit itself would take them for the task's
own), and ours.

Our verbs declare them as their parameters, so that doit accepts them there, and `config` hands what was
given to doit as its defaults; `doit -n 2 build` needs none of this and wins. Ours may also be given as variables,
`locked=1`, which doit takes everywhere.
Source: doit 0.37, task.py (init_options parses what follows a task's name) and cmd_run.py (the options).
"""

from __future__ import annotations

import getopt
from collections.abc import Sequence

from umlbuild.errors import UserError

_TYPES: dict[str, tuple[str, str, type]] = {
    "num_process": ("n", "process", int),
    "par_type": ("P", "parallel-type", str),
    "always": ("a", "always-execute", bool),
    "continue": ("c", "continue", bool),
    "reporter": ("r", "reporter", str),
    "outfile": ("o", "output-file", str),
}
"""doit's name → short and long option, type."""

_VALUES = {"1": True, "yes": True, "0": False, "no": False, "": False}

OURS = {
    "locked": "refuse unless the lock is there and answers the recipe",
    "offline": "use no network: everything must have been fetched before",
}
"""Our switches → what they do."""

LONG = (*(long for _, long, _ in _TYPES.values()), *OURS)
"""The long names of all options after a verb."""

PARAMS: list[dict[str, object]] = [
    {"name": name, "short": short, "long": long, "type": kind, "default": kind(), "help": f"doit's --{long}"}
    for name, (short, long, kind) in _TYPES.items()
] + [{"name": name, "long": name, "type": bool, "default": False, "help": text} for name, text in OURS.items()]
"""The parameters of our verbs."""


def after_verb(words: Sequence[str], verbs: Sequence[str]) -> dict[str, object]:
    """The values of doit's options that follow one of our verbs; {} when doit will refuse them anyway."""
    begin = next((at for at, word in enumerate(words) if word in verbs), len(words))
    try:
        return parsed(words[begin:])
    except (getopt.GetoptError, ValueError):
        return {}


def parsed(words: Sequence[str]) -> dict[str, object]:
    """The values of doit's options among the words after a verb. Raises: GetoptError, ValueError."""
    rest = [word for word in words if word and (word[0] == "-" or "=" not in word)]
    short = "".join(f"{s}{'' if kind is bool else ':'}" for s, _, kind in _TYPES.values())
    long = [f"{name}{'' if kind is bool else '='}" for _, name, kind in _TYPES.values()] + [*OURS]
    given, _ = getopt.gnu_getopt(rest, short, long)
    rows = [row for row in given if row[0].removeprefix("--") not in OURS]
    return {name: _value(kind, text) for option, text in rows for name, kind in [_named(option)]}


def usage(program: str, verb: str) -> str:
    """What may follow a verb."""
    rows = [f"usage: {program} {verb} recipe=FILE[,FILE…] [OPTION…]", ""]
    rows += [f"  --{name:<20} {text}" for name, text in OURS.items()]
    rows += [f"  -{short}, --{long:<16} doit's own, see: doit help run" for short, long, _ in _TYPES.values()]
    if verb == "release":
        rows += ["", "  version=1.2 key=FILE force=1"]
    return "\n".join(rows)


def switch(words: Sequence[str], name: str) -> bool:
    """Whether one of our switches is on: `--locked`, `locked=1`. Raises: UserError for another value than 0 or 1."""
    values = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    if wrong := [value for value in values if value not in _VALUES]:
        hint = f"{name}=1 or --{name}: {OURS[name]}" if name in OURS else f"{name}=1"
        raise UserError(f"{name}={wrong[0]}: not 0 or 1", hint)
    return f"--{name}" in words or any(_VALUES[value] for value in values[-1:])


def _named(option: str) -> tuple[str, type]:
    for name, (short, long, kind) in _TYPES.items():
        if option in (f"-{short}", f"--{long}"):
            return name, kind
    raise AssertionError(option)


def _value(kind: type, text: str) -> object:
    return True if kind is bool else kind(text)
