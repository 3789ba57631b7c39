"""Other machines' compilers, by distcc: only those that are the compiler which the kernel's key names.

Each machine has to compile a probe to the same object as the one here, in which gcc writes its own version. A machine
that fails later costs time: distcc then compiles here.

Source: distcc(1) (DISTCC_HOSTS, DISTCC_FALLBACK, DISTCC_IO_TIMEOUT, DISTCC_NO_REWRITE_CROSS, "HOST SPECIFICATIONS":
HOST[:PORT][/LIMIT][,OPTION], four jobs without a LIMIT). Measured: the kernel of recipes/router.toml has the
bytes that it has when compiled here; the tests compare parts of one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from umlbuild.errors import ToolFailed
from umlbuild.host import offline, process

HOSTS = "DISTCC_HOSTS"
_HERE = ("localhost", "--localslots", "--localslots_cpp", "--randomize")
_LIMIT = re.compile(r"/(\d+)")
_USUAL_LIMIT = 4
_PROBE_S = 30.0
_TEXT = """\
#include <stddef.h>
struct point { long x, y; };
static long sum(const struct point *all, size_t count)
{
	long total = 0;
	for (size_t i = 0; i < count; i++)
		total += all[i].x * 3 + all[i].y % 7;
	return total;
}
long probe(const struct point *all, size_t count, double scale)
{
	return sum(all, count) / (long)(scale * 1.5) + (long)__LINE__;
}
"""


def environment(hosts: Sequence[str], directory: Path) -> Mapping[str, str]:
    """What distcc is told. Its locks and the machines that it gave up lie in `directory`."""
    return {
        HOSTS: " ".join(hosts),
        "DISTCC_DIR": os.fspath(directory),
        "DISTCC_IO_TIMEOUT": "300",
        # Else it calls gcc by its full name, which then stands in CONFIG_CC_VERSION_TEXT and in the kernel's banner.
        "DISTCC_NO_REWRITE_CROSS": "1",
    }


def jobs(hosts: Sequence[str]) -> int:
    """How many compilers these machines run at once, without this one."""
    found = [_LIMIT.search(host) for host in hosts if not _is_here(host)]
    return sum(int(limit[1]) if limit else _USUAL_LIMIT for limit in found)


def usable(
    environ: Mapping[str, str], config: Mapping[str, str], work: Path, log: Path, note: Callable[[str], None]
) -> tuple[str, ...]:
    """The machines that DISTCC_HOSTS names and whose compiler is the one here, for a kernel of this configuration.

    Who is left out is said, with the reason.
    """
    words = tuple(environ.get(HOSTS, "").split())
    if process.find("distcc") is None:
        note("distcc is not installed; compiling here")
    elif offline.is_offline():
        note("offline: compiling here, without distcc")
    elif config.get("DEBUG_INFO") == "y":  # measured: the same code, but other directories and columns in .debug_*
        note("distcc: DEBUG_INFO would tell where it was compiled; compiling here")
    elif not words:
        note(f"distcc: {HOSTS} names no machine; compiling here")
    else:
        found = tuple(_probed(words, work, log, note))
        if any(not _is_here(host) for host in found):
            return found
    return ()


def _probed(words: Sequence[str], work: Path, log: Path, note: Callable[[str], None]) -> Iterator[str]:
    source = work / "probe.c"
    source.write_text(_TEXT)
    own = _compiled(["gcc"], source, {}, log)
    for word in words:
        if _is_here(word):
            yield word
            continue
        env = {**environment([word], work), "DISTCC_FALLBACK": "0"}
        try:
            theirs = _compiled(["distcc", "gcc"], source, env, log)
        except ToolFailed:
            note(f"distcc: {word} does not compile; left out")
            continue
        if theirs == own:
            yield word
        else:
            note(f"distcc: {word} has another compiler; left out")


def _compiled(compiler: Sequence[str], source: Path, env: Mapping[str, str], log: Path) -> bytes:
    out = source.with_suffix(".o")
    out.unlink(missing_ok=True)
    argv = [*compiler, "-O2", "-c", source.name, "-o", out.name]
    process.run(argv, cwd=source.parent, env=env, log=log, timeout_s=_PROBE_S)
    return out.read_bytes()


def _is_here(word: str) -> bool:
    return re.split(r"[:/,=]", word)[0] in _HERE
