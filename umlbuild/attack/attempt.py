"""What an attempt is, what it may know about the place it starts from, and how its success is told. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from umlbuild.attack.canaries import Canaries
from umlbuild.attack.limits import Limits
from umlbuild.attack.program import Program

Group = Literal["share", "paths", "processes", "sockets", "code", "devices", "exhaustion", "restart", "guest"]
Needs = Literal[
    "hostfs", "share", "writable share", "network device", "data disk", "writable root", "limit of processes",
    "core files of its own (core_pattern is a pipe)",
]  # fmt: skip
Verdict = Literal["held", "open", "weak", "not tried"]


@dataclass(frozen=True)
class Scene:
    """Where attempts are made."""

    canaries: Canaries
    needs: frozenset[Needs]
    """What this bundle has of what attempts can need."""
    share_numbers: Mapping[str, int]
    """ "ro" and "rw" → the number of such a share, as hostfs has it at its root."""
    bundle: str
    home: str
    """The machine's private directory on the host; its name is the same inside."""
    writable_share: str
    """Where UML sees that share."""
    inside: frozenset[str]
    """Paths that a jail does hold; what is above them is seen in it, too."""
    limits: Limits
    state: str = ""
    """The COW file that outlives a start, as the host names it; for attempts on the next start."""
    image: str = ""
    """The bundle's image, as the host names it."""


@dataclass(frozen=True)
class Evidence:
    """What an attempt gave."""

    output: bytes
    results: Mapping[str, int] | None = None
    """Of a program's labelled calls."""
    measured: str = ""
    """What was measured on the host while it was made; empty: nothing beyond what is allowed."""


Judge = Callable[[Scene, Evidence], str]
"""Empty: it held; else what was seen, in words."""
Measure = Callable[[Scene], str]
"""The same, while an attempt is made."""
Body = Callable[[Scene, Program], None]
"""Adds an attempt's calls to a program."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to get out."""

    name: str
    group: Group
    tries: str
    """What it tries, for people."""
    judge: Judge
    needs: tuple[Needs, ...] = ()
    weak: bool = field(default=False, kw_only=True)
    """One that gets through is no escape: a weakness that is known and documented."""


@dataclass(frozen=True)
class Live(Attempt):
    """One that is made in a running machine or jail."""

    alone: bool = field(default=False, kw_only=True)
    """It has a start of its own, since it spoils it for others."""
    options: tuple[str, ...] = field(default=(), kw_only=True)
    """More of the launcher's, for one that is alone; @LOG@ is a file on the host."""
    measure: Measure | None = field(default=None, kw_only=True)
    """Asked again and again while one runs that is alone, and once after it."""


@dataclass(frozen=True)
class ByGuest(Live):
    """A shell script that guest root runs."""

    script: Callable[[Scene], str] = field(kw_only=True)


@dataclass(frozen=True)
class ByCode(Live):
    """A program that runs in UML's place, with UML's own rights."""

    program: Body = field(kw_only=True)


@dataclass(frozen=True)
class ByGuestCode(Live):
    """A program that guest root runs: the calls go to the guest's kernel."""

    program: Body = field(kw_only=True)


@dataclass(frozen=True)
class ByRestart(Attempt):
    """A program in UML's place prepares the machine's state; then the launcher starts it once more."""

    plant: Body = field(kw_only=True)
    script: str = field(default="", kw_only=True)
    """What guest root looks at after the second start; empty: that start is all, nothing is booted."""
    patience_s: float = field(default=100, kw_only=True)
    """How long that one may take to come up."""


# --- judges ---------------------------------------------------------------------------------------------------


def reads_secret(scene: Scene, evidence: Evidence) -> str:
    """The canary's content came out."""
    return "the canary's content was read" if scene.canaries.secret_text.encode() in evidence.output else ""


def changes_victim(scene: Scene, _evidence: Evidence) -> str:
    """A file of the host was changed."""
    change = scene.canaries.was_changed()
    return f"a host file was changed: {change}" if change else ""


def makes(name: str) -> Judge:
    """Something of this name appeared on the host."""

    def judge(scene: Scene, _evidence: Evidence) -> str:
        made = scene.canaries.was_made(name)
        return f"made {', '.join(made)}" if made else ""

    return judge


def reaches(word: str) -> Judge:
    """A socket of the host got this word."""

    def judge(scene: Scene, _evidence: Evidence) -> str:
        scene.canaries.listen()
        return "a socket of the host was reached" if word in scene.canaries.heard else ""

    return judge


def signals(scene: Scene, _evidence: Evidence) -> str:
    """The host's process felt something."""
    return "a host process got a signal" if scene.canaries.was_signalled() else ""


def spoils(scene: Scene, _evidence: Evidence) -> str:
    """Something dangerous lies in the writable share."""
    return "; ".join(scene.canaries.dangerous("rw"))


BLURRED: tuple[Judge, ...] = (changes_victim, signals, spoils)
"""These see what was done, and not by which of several attempts."""


def measures(_scene: Scene, evidence: Evidence) -> str:
    """What the host measured was too much."""
    return evidence.measured


def says(word: str) -> Judge:
    """The attempt itself says so: for what leaves no trace on the host."""

    def judge(_scene: Scene, evidence: Evidence) -> str:
        return f"it got through: {word}" if word.encode() in evidence.output else ""

    return judge


def succeeds(*labels: str) -> Judge:
    """A system call did not fail."""

    def judge(_scene: Scene, evidence: Evidence) -> str:
        done = [label for label in labels if (evidence.results or {}).get(label, -1) >= 0]
        return f"{', '.join(done)} succeeded" if done else ""

    return judge


_DENIALS = (-1, -2, -13, -38, -97, -999)
"""EPERM, ENOENT, EACCES, ENOSYS, EAFNOSUPPORT, not come to."""


def any_of(*judges: Judge) -> Judge:
    """One of them saw something."""
    return lambda scene, evidence: "; ".join(filter(None, (judge(scene, evidence) for judge in judges)))


def is_let_in(*labels: str, denials: tuple[int, ...] = _DENIALS) -> Judge:
    """A system call was not refused, though its arguments (harmless on purpose) were."""

    def judge(_scene: Scene, evidence: Evidence) -> str:
        done = [label for label in labels if (evidence.results or {}).get(label, -1) not in denials]
        return f"{', '.join(done)} was not refused" if done else ""

    return judge


def sees(path: str) -> Judge:
    """Names came out that a directory of the host holds, and the jail's own does not."""

    def judge(scene: Scene, evidence: Evidence) -> str:
        prefix = path.rstrip("/") + "/"
        own = {inside[len(prefix) :].split("/")[0] for inside in scene.inside if inside.startswith(prefix)}
        try:
            names = {name for name in os.listdir(path) if len(name) > 2} - own
        except OSError:
            return ""
        said = set(re.split(rb"[\x00-\x1f]+", evidence.output))
        seen = sorted(name for name in names if os.fsencode(name) in said)
        return f"{path} of the host was listed: {', '.join(seen[:4])}" if seen else ""

    return judge
