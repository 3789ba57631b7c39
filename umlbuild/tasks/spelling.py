"""What is misspelled on a command line of ours: doit takes `versoin=2` and `--lock` without a word, and
refuses the rest in words of its own, as an error of code 3.

Only where no tasks of others are: they may have variables, options and names that we do not know.
Source: doit 0.37, doit_cmd.py (any `name=value` is a variable) and cmdparse.py (getopt: the beginning of an option's
name will do, which `request` would not see).
"""

from __future__ import annotations

import getopt
from collections.abc import Sequence

from umlbuild.errors import UserError
from umlbuild.host.names import nearest
from umlbuild.tasks import options
from umlbuild.tasks.request import LOOKING, OTHERS, VERBS, verb_of

VARIABLES = ("recipe", "version", "key", "force", *options.OURS)
_NEVER_EMPTY = ("version", "key")


def check(words: Sequence[str], program: str) -> None:
    """Refuse what is misspelled after a verb, and a first word that is like one. Raises: UserError, with what was
    probably meant.
    """
    verb = verb_of(words)
    if verb is None:
        _check_verb(words, program)
        return
    _check_variables(words)
    # `list build --all`: these have options of their own.
    if ":" in verb or words[0] in LOOKING:
        return
    rest = words[words.index(verb) + 1 :]
    _check_options(rest, program, verb)
    for name in rest:
        if name.endswith(".toml") and "=" not in name:
            raise UserError(f"{name}: a recipe is named by a variable", f"{program} {verb} recipe={name}")


def _check_verb(words: Sequence[str], program: str) -> None:
    """The first word, where it is like a verb of ours or a command of doit's; doit takes names of steps and files."""
    first = words[0] if words else ""
    known = (*VERBS, *sorted(LOOKING), "run", *OTHERS)
    if first.isalpha() and first not in known and (hint := nearest(first, known)):
        raise UserError(f"{first}: there is no such verb{hint}", f"{program} list")
    if all("=" in word for word in words) or first == "run":  # the default verb
        _check_variables(words)


def _check_variables(words: Sequence[str]) -> None:
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            continue
        if name not in VARIABLES:
            hint = f"there are: {', '.join(VARIABLES)}"
            raise UserError(f"{name}=: there is no such variable{nearest(name, VARIABLES)}", hint)
        if name in _NEVER_EMPTY and not value:
            raise UserError(f"{name}=: is empty", f"leave it out, or say {name}=…")


def _check_options(rest: Sequence[str], program: str, verb: str) -> None:
    hint = f"{program} {verb} --help"
    for word in rest:
        name = word[2:].partition("=")[0]
        if word.startswith("--") and name not in ("", *options.LONG):
            raise UserError(f"--{name}: there is no such option{nearest(name, options.LONG)}", hint)
    try:
        options.parsed(rest)
    except getopt.GetoptError as error:
        raise UserError(error.msg, hint) from error
    except ValueError as error:
        raise UserError(f"{verb}: -n wants a number of processes", hint) from error
