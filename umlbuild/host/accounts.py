"""The account files of a root (passwd, shadow, group, gshadow) as rows of fields. Pure.

Lines that are not touched keep their bytes and order. New numbers are the first free ones from 1000, so
the same recipe gives the same numbers. No plain-text password ever comes here, only crypt(5) hashes.

Source: passwd(5), shadow(5), group(5), gshadow(5); ranges as in Debian policy 9.2.2 and login.defs(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from umlbuild.errors import StepFailed
from umlbuild.host.names import nearest
from umlbuild.host.process import EPOCH
from umlbuild.specs.rootfs import User

FILES = ("passwd", "shadow", "group", "gshadow")
TODAY = str(EPOCH // 86_400)
"""The day of every password change: a real one would differ from build to build."""

_FIRST_ID = 1000
_LAST_ID = 59_999
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_FIELDS = {"passwd": 7, "shadow": 9, "group": 4, "gshadow": 4}


@dataclass(frozen=True)
class Account:
    """What the other parts of a root need to know of a user."""

    name: str
    uid: int
    gid: int
    home: str
    is_new: bool


class Accounts:
    """The four files of one root, each a list of rows."""

    def __init__(self, read: Callable[[str], str]) -> None:
        """`read` gives the text of "passwd" and so on, "" where there is none."""
        self._rows = {
            name: [line.split(":") for line in read(name).removesuffix("\n").split("\n") if line] for name in FILES
        }

    def text(self, name: str) -> str:
        """The text of one of the files."""
        return "".join(f"{':'.join(row)}\n" for row in self._rows[name])

    def uid(self, name: str) -> int:
        """A user's number; a decimal number stands for itself. Raises: StepFailed naming the nearest."""
        return self._id("passwd", "user", name)

    def gid(self, name: str) -> int:
        """A group's number; as `uid`."""
        return self._id("group", "group", name)

    def put(self, user: User, default_shell: str) -> Account:
        """Create a user, or change one that is there.

        Raises: StepFailed (an impossible name or field, a number that is taken, an unknown group).
        """
        _check(user)
        row = self._find("passwd", user.name)
        is_new = row is None
        if row is None:
            row = self._new(user, default_shell)
        elif user.uid is not None and int(row[2]) != user.uid:
            raise StepFailed(f"user {user.name}: has uid {row[2]} in this root, not {user.uid}", "leave uid out")
        if user.home is not None:
            row[5] = user.home
        if user.shell is not None:
            row[6] = user.shell
        self._set_password(user)
        for name in user.groups:
            self._join(user.name, name)
        return Account(user.name, int(row[2]), int(row[3]), row[5], is_new)

    def _new(self, user: User, default_shell: str) -> list[str]:
        uid = self._free("passwd", user.uid, user.name)
        # As useradd does: a group of one's own, with the same number if that is free.
        group = self._find("group", user.name)
        if group is None:
            taken = self._taken("group")
            gid = uid if uid not in taken else self._free("group", None, user.name)
            self._rows["group"].append([user.name, "x", str(gid), ""])
            self._rows["gshadow"].append([user.name, "!", "", ""])
        else:
            gid = int(group[2])
        row = [user.name, "x", str(uid), str(gid), "", f"/home/{user.name}", default_shell]
        self._rows["passwd"].append(row)
        return row

    def _set_password(self, user: User) -> None:
        row = self._find("shadow", user.name)
        if row is None:
            row = [user.name, "!", TODAY, "0", "99999", "7", "", "", ""]
            self._rows["shadow"].append(row)
        if row[1].startswith(("!", "*")) and user.password_hash == "!":
            return  # locked already, in the packages' own way
        row[1], row[2] = user.password_hash, TODAY

    def _join(self, user: str, name: str) -> None:
        self.gid(name)
        for file in ("group", "gshadow"):
            row = self._find(file, name)
            if row is not None:
                members = [member for member in row[3].split(",") if member]
                if user not in members:
                    row[3] = ",".join([*members, user])

    def _find(self, file: str, name: str) -> list[str] | None:
        for row in self._rows[file]:
            if row[0] == name and len(row) == _FIELDS[file]:
                return row
        return None

    def _taken(self, file: str) -> set[int]:
        return {int(row[2]) for row in self._rows[file] if len(row) == _FIELDS[file] and row[2].isdigit()}

    def _free(self, file: str, wanted: int | None, name: str) -> int:
        taken = self._taken(file)
        if wanted is not None:
            if wanted in taken:
                owner = next(row[0] for row in self._rows[file] if row[2:3] == [str(wanted)])
                raise StepFailed(f"user {name}: uid {wanted} is {owner}'s", "choose another, or leave uid out")
            return wanted
        for number in range(_FIRST_ID, _LAST_ID + 1):
            if number not in taken and (file == "group" or number not in self._taken("group")):
                return number
        raise StepFailed(f"user {name}: no number from {_FIRST_ID} to {_LAST_ID} is free")

    def _id(self, file: str, what: str, name: str) -> int:
        if name.isascii() and name.isdigit():
            return int(name)
        row = self._find(file, name)
        if row is None:
            known = [row[0] for row in self._rows[file]]
            raise StepFailed(f"there is no {what} {name!r} in the root{nearest(name, known)}")
        return int(row[2])


def group_ids(group: str) -> dict[str, int]:
    """Name → number of every line of a group file."""
    rows = (line.split(":") for line in group.splitlines())
    return {row[0]: int(row[2]) for row in rows if len(row) == 4 and row[2].isdigit()}


def _check(user: User) -> None:
    if not _NAME.fullmatch(user.name):
        raise StepFailed(f"user {user.name!r}: a name has small letters, digits, - and _, at most 31")
    if user.password_hash == "":
        raise StepFailed(f"user {user.name}: an empty password hash would let anybody in", 'use "!" to lock')
    for field in (user.password_hash, user.shell or "", user.home or ""):
        if ":" in field or "\n" in field:
            raise StepFailed(f"user {user.name}: neither ':' nor a line break can be in shell, home or hash")
