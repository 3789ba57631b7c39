"""Accounts: numbers are the same every time, other lines keep their bytes, nobody gets in by mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlbuild.errors import StepFailed
from umlbuild.host.accounts import FILES, TODAY, Accounts, group_ids
from umlbuild.specs.rootfs import User

TEXTS = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n"
    "old:x:1001:1001::/home/old:/bin/sh\n",
    "shadow": "root:*:19000:0:99999:7:::\nwww-data:*:19000:0:99999:7:::\nold:!:19000:0:99999:7:::\n",
    "group": "root:x:0:\nadm:x:4:syslog\nwww-data:x:33:\nold:x:1001:\nusers:x:1000:\n",
    "gshadow": "root:*::\nadm:*::syslog\nwww-data:*::\nold:!::\nusers:*::\n",
}


def accounts() -> Accounts:
    return Accounts(TEXTS.__getitem__)


def line(made: Accounts, file: str, name: str) -> str:
    return next(row for row in made.text(file).splitlines() if row.startswith(f"{name}:"))


def test_a_new_user_is_as_useradd_makes_it() -> None:
    made = accounts()
    account = made.put(User(name="bob", groups=("adm",), password_hash="$y$h"), "/bin/bash")
    # 1000 is a group's, 1001 old's: a number that is free as both is taken.
    assert (account.uid, account.gid, account.home, account.is_new) == (1002, 1002, "/home/bob", True)
    assert line(made, "passwd", "bob") == "bob:x:1002:1002::/home/bob:/bin/bash"
    assert line(made, "shadow", "bob") == f"bob:$y$h:{TODAY}:0:99999:7:::"
    assert line(made, "group", "bob") == "bob:x:1002:"
    assert line(made, "gshadow", "bob") == "bob:!::"
    assert line(made, "group", "adm") == "adm:x:4:syslog,bob"
    assert line(made, "gshadow", "adm") == "adm:*::syslog,bob"


def test_users_are_numbered_in_order_and_a_second_time_changed_only() -> None:
    made = accounts()
    ids = [made.put(User(name=name), "/bin/sh").uid for name in ("a", "b", "a")]
    assert ids == [1002, 1003, 1002]
    assert made.text("passwd").count("a:x:1002") == 1


def test_root_stays_locked_unless_a_hash_is_given() -> None:
    made = accounts()
    made.put(User(name="root"), "/bin/sh")
    assert line(made, "shadow", "root") == "root:*:19000:0:99999:7:::"
    made.put(User(name="root", password_hash="$6$x", shell="/bin/zsh"), "/bin/sh")
    assert line(made, "shadow", "root") == f"root:$6$x:{TODAY}:0:99999:7:::"
    assert line(made, "passwd", "root") == "root:x:0:0:root:/root:/bin/zsh"


@pytest.mark.parametrize(
    ("user", "says"),
    [
        (User(name="Bob"), "small letters"),
        (User(name="a:b"), "small letters"),
        (User(name="bob", password_hash=""), "let anybody in"),
        (User(name="bob", shell="/bin/sh\nroot::0:0"), "line break"),
        (User(name="bob", groups=("amd",)), "no group 'amd' in the root; did you mean adm?"),
        (User(name="bob", uid=33), "uid 33 is www-data's"),
        (User(name="www-data", uid=34), "has uid 33 in this root, not 34"),
    ],
)
def test_what_cannot_be(user: User, says: str) -> None:
    with pytest.raises(StepFailed) as caught:
        accounts().put(user, "/bin/sh")
    assert says in str(caught.value)


def test_owners_by_name_and_number() -> None:
    made = accounts()
    assert (made.uid("www-data"), made.gid("adm"), made.uid("12345")) == (33, 4, 12345)
    with pytest.raises(StepFailed, match="no user 'ww-data' in the root; did you mean www-data"):
        made.uid("ww-data")


ODD = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(ODD, max_size=5).map(lambda rows: [row for row in rows if row and not row.startswith("bob:")]))
def test_other_lines_keep_their_bytes(odd: list[str]) -> None:
    texts = {name: TEXTS[name] + "".join(f"{row}\n" for row in odd) for name in FILES}
    made = Accounts(texts.__getitem__)
    assert {name: made.text(name) for name in FILES} == texts
    made.put(User(name="bob"), "/bin/sh")
    for name in FILES:
        assert made.text(name).startswith(texts[name])


def test_group_ids() -> None:
    assert group_ids("a:x:5:\nbroken\nb:x:six:\nc:x:7:u,v\n") == {"a": 5, "c": 7}
