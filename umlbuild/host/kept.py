"""Versions that a resolution shall keep where it can: as apt's preferences, loosened by what apt says is in the way.

apt alone solves. A kept version that no list has any more has no effect (apt takes its own candidate); one that a
new package forbids is named in apt's complaint, is let go, and apt is asked again.

Source: apt_preferences(5) (above 1000: whatever the release); apt's problem resolver, ShowBroken in apt-private:
` tool : Depends: libtool9 (>= 2) but 1.0 is to be installed`, alternatives on lines of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_BROKEN = re.compile(r"^ (?P<package>\S+) : ")
_NAMED = re.compile(r"(?:^ \S+ : |^ +)(?:[A-Z]\w+: )?(?P<name>[a-z0-9][a-z0-9+.-]+)(?::\w+)? .*but ")


def write(keep: Mapping[str, str], path: Path) -> None:
    """The preferences that make apt choose these versions."""
    rows = (f"Package: {name}\nPin: version {keep[name]}\nPin-Priority: 1001\n" for name in sorted(keep))
    path.write_text("\n".join(rows))


def in_the_way(complaint: Iterable[str], keep: Mapping[str, str]) -> set[str]:
    """Which kept packages apt's complaint about unmet dependencies names, on either side of one."""
    names: set[str] = set()
    for line in complaint:
        for pattern, group in ((_BROKEN, "package"), (_NAMED, "name")):
            if found := pattern.match(line):
                names.add(found[group].partition(":")[0])
    return names & keep.keys()
