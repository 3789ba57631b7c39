"""Which way this user can make files of any owner, and how to start a program that does.

Three ways: as root; as a user with subordinate ids, who is root of a user namespace with 65536 ids; as a
user without, for whom fakeroot can only pretend. What is missing is said with the one line that mends it.

`obstacle` asks only the kernel and /etc, so it can be asked before anything is installed; `owners` really tries.

The own namespace maps the caller's own id to root, so that a cache in a home directory of mode 0700
stays readable in it (newuidmap's plain way, and mmdebstrap's, maps root to the first subordinate id).

Source: user_namespaces(7) (uid_map: the third field of each line is a length), subuid(5), unshare(1) of
util-linux 2.38 (--map-auto); experiments A.
"""

from __future__ import annotations

import functools
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from umlbuild.errors import HostError, ToolFailed
from umlbuild.host import process

Way = Literal["root", "subids", "fakeroot"]

_IDS = 65_536
_FIRST = 100_000
_PROBE_S = 20
_NAMESPACES = ("--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "--ipc", "--uts")
PROGRAMS: dict[Way, tuple[str, ...]] = {
    "root": ("unshare",),
    "subids": ("unshare", "newuidmap", "newgidmap"),
    "fakeroot": ("fakechroot", "fakeroot"),
}
"""What each way needs on this machine."""

_SYSCTLS = (
    # (file, value that forbids, the setting that allows)
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
)


@dataclass(frozen=True)
class Owners:
    """How owners can be made here."""

    way: Way
    missing: HostError | None = None
    """Why it is not better than "fakeroot"."""

    def prefix(self, *, network: bool = False) -> tuple[str, ...]:
        """The words before a program that is to be root, in namespaces of its own, of 65536 ids.

        Raises: HostError where there are none.
        """
        if self.missing is not None:
            raise self.missing
        user = ("--user", "--map-auto", "--map-root-user") if self.way == "subids" else ()
        return ("unshare", *user, *_NAMESPACES, *(() if network else ("--net",)), "--")


@functools.cache
def owners() -> Owners:
    """How owners can be made on this machine by this user."""
    missing = obstacle() or _lack_of_programs()
    way: Way = "root" if os.geteuid() == 0 else "subids"
    if missing is None and not _works(Owners(way).prefix()):
        missing = _no_namespaces()
    return Owners("fakeroot", missing) if missing else Owners(way)


def obstacle() -> HostError | None:
    """What keeps this user from making owners, whatever else is installed; None: nothing is known that does.

    Whoever has an obstacle can only pretend.
    """
    if os.geteuid() == 0:
        ids = mapped_ids(*(Path(f"/proc/self/{name}").read_text() for name in ("uid_map", "gid_map")))
        if ids < _IDS:
            return _few_ids(ids)
        trial = Owners("root").prefix()
    else:
        if missing := _missing_ids(name_of_user(), os.geteuid(), Path("/etc")):
            return missing
        # Without newuidmap only the own id can be mapped; whether a namespace may be made shows all the same.
        trial = ("unshare", "--user", "--map-root-user", "--mount", "--")
    return None if process.find(trial[0]) is None or _works(trial) else _no_namespaces()


def name_of_user() -> str:
    """The name of the user who runs this; the number for one without a name (containers have such)."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def mapped_ids(*maps: str) -> int:
    """How many ids a process has, by its uid_map and gid_map."""
    return min(sum(int(line.split()[2]) for line in text.splitlines()) for text in maps)


def subordinate_ids(text: str, name: str, uid: int) -> int:
    """How many ids a subuid or subgid file gives to a user in one range."""
    counts = [0]
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        _, _, count = rest.partition(":")
        if owner in (name, str(uid)) and count.isdigit():
            counts.append(int(count))
    return max(counts)


def free_range(texts: Sequence[str]) -> str:
    """The first range of 65536 ids that nobody has yet, as `usermod` takes it: FIRST-LAST."""
    first = _FIRST
    for text in texts:
        for line in text.splitlines():
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
                first = max(first, int(fields[1]) + int(fields[2]))
    return f"{first}-{first + _IDS - 1}"


def _missing_ids(name: str, uid: int, etc: Path) -> HostError | None:
    texts = [path.read_text() if path.exists() else "" for path in (etc / "subuid", etc / "subgid")]
    if min(subordinate_ids(text, name, uid) for text in texts) >= _IDS:
        return None
    ids = free_range(texts)
    return HostError(
        f"making files of several owners: {name} has no {_IDS} subordinate user and group ids",
        f"sudo usermod --add-subuids {ids} --add-subgids {ids} {name}",
    )


def _few_ids(ids: int) -> HostError:
    return HostError(
        f"making files of several owners: root is here root of a user namespace with only {ids} of {_IDS} ids",
        f"build outside of it, or map {_IDS} ids into it (unshare --map-auto)",
    )


def _lack_of_programs() -> HostError | None:
    if os.geteuid() == 0 or (process.find("newuidmap") and process.find("newgidmap")):
        return None
    return HostError(
        "making files of several owners as an ordinary user: newuidmap is missing",
        "sudo apt-get install uidmap",
    )


def _no_namespaces() -> HostError:
    if os.geteuid() == 0:
        return HostError(
            "root may not make namespaces here (a container without CAP_SYS_ADMIN?)",
            "build as an ordinary user, or give the container --privileged",
        )
    return _forbidden(Path("/proc/sys"))


def _forbidden(sysctls: Path) -> HostError:
    what = "making files of several owners: this system does not let users make user namespaces"
    for name, forbids, setting in _SYSCTLS:
        path = sysctls / name
        if path.exists() and path.read_text().strip() == forbids:
            return HostError(f"{what} ({name.replace('/', '.')} = {forbids})", f"sudo sysctl -w {setting}")
    return HostError(what, "allow user namespaces (container: --security-opt seccomp=unconfined), or build as root")


def _works(prefix: Sequence[str]) -> bool:
    try:
        process.run([*prefix, "true"], log=None, timeout_s=_PROBE_S)
    except (ToolFailed, HostError):
        return False
    return True
