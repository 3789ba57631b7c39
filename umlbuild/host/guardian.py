"""Ends the programs of a build that was killed, with all that they started.

A program that we start dies with us (setpriv --pdeathsig), but what it started does not: the compilers of a make went
on for minutes. So a shell of our own, in a session of its own, hears from us which process groups run, and at our end
(the end of its input) kills those that are left.

Source: prctl(2), PR_SET_PDEATHSIG: not inherited by the children of a fork.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Mapping

_SCRIPT = """
trap '' HUP INT TERM
groups=' '
while read -r what group; do
    case $what in
    +) groups="$groups$group " ;;
    -) case $groups in
       *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;;
       esac ;;
    esac
done
for group in $groups; do
    kill -s KILL -- "-$group"
done
"""

_pipes: dict[str, int] = {}
"""The one that our guardian reads, once there is one."""
_lock = threading.Lock()


def begins(group: int, env: Mapping[str, str]) -> None:
    """A process group of ours has begun; `env` is what a guardian sees that has to be started first."""
    with _lock:
        if "in" not in _pipes:
            _pipes["in"] = _started(env)
    _tell(f"+ {group}\n")


def ended(group: int) -> None:
    """It has ended, or was killed."""
    _tell(f"- {group}\n")


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):  # without a guardian we go on
        os.write(_pipes.get("in", -1), line.encode())


def _started(env: Mapping[str, str]) -> int:
    """The writing end of a new guardian's input; -1 if it cannot be started."""
    shell = shutil.which("sh", path=env.get("PATH"))
    if shell is None:
        return -1
    reading, writing = os.pipe()
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        os.posix_spawn(shell, ["sh", "-c", _SCRIPT], dict(env), file_actions=actions, setsid=True)
    except OSError:
        os.close(writing)
        return -1
    finally:
        os.close(reading)
    return writing
