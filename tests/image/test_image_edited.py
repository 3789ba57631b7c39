"""Edited images: what debugfs put into a copy is what a new image would have, and nothing of the host."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import imagekit
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagekit import UUID, awkward_root, build, root_entry, tool

from umlbuild import digest
from umlbuild.errors import StepFailed, UserError
from umlbuild.host import changes, ground, seal
from umlbuild.host.changes import Changes
from umlbuild.host.process import EPOCH
from umlbuild.host.tarball import Member
from umlbuild.host.tree import Tree
from umlbuild.kinds.images.ext4 import Ext4
from umlbuild.specs.image import EditedImageSpec
from umlbuild.stages import edited_image
from umlbuild.stages.context import Context

KIND = Ext4(size="64M")
Edit = Callable[[Tree], None]


def tools() -> Path:
    return imagekit.tools_entry(KIND.tools, KIND.programs, KIND.libraries)


def replaced(tree: Tree) -> None:
    tree.put_file("/etc/shadow", b"root:*:::::::\n", mode=0o640, uid=3, gid=42)
    tree.put_file("/etc/with space", b"")
    tree.put_file('/etc/with "quotes" \\ and ☃', b"q\n", mode=0o4711, uid=100_000, gid=200_000)
    tree.put_symlink("/etc/empty", "/usr/share/" + "long/" * 20)
    tree.put_symlink("/etc/new", "shadow", uid=7)
    tree.put_file("/etc/link", b"no link any more\n")


def directories(tree: Tree) -> None:
    tree.put_dir("/home/u", mode=0o750, uid=5, gid=6)
    tree.put_dir("/srv/deep/er", mode=0o1777, uid=5)
    tree.put_file("/srv/deep/er/file", b"x" * 70_000)
    tree.put_dir("/", mode=0o711)
    tree.remove("/var/acl", "/var/big")


def names(tree: Tree) -> None:
    """Of a file that has two: other content, as another program writes it, and a third name."""
    tree.replace("/bin/ping", b"other\n")
    tree.put(Member("bin/ping6", "link", 0o755, target="bin/ping"))


def name_gone(tree: Tree) -> None:
    tree.remove("/bin/ping4")


def first_name_gone(tree: Tree) -> None:
    tree.remove("/bin/ping")


def attributes(tree: Tree) -> None:
    capability = {"security.capability": imagekit.CAPABILITY}
    tree.put(Member("bin/tool", "file", 0o755, data=b"t", xattrs={**capability, "user.note": b"n"}))
    tree.put(Member("var/other", "dir", 0o755, xattrs={"system.posix_acl_access": imagekit.ACL}))
    tree.put(Member("var/old", "file", 0o644, data=b"o", mtime=EPOCH - 1000))


def many(tree: Tree) -> None:
    """More than one block of the directory, and more than one of the inode table."""
    for number in range(300):
        tree.put_file(f"/etc/conf.d/{number:03}-{'n' * 60}", f"{number}\n".encode())


def to_a_link(tree: Tree) -> None:
    tree.remove("/home")
    tree.put_symlink("/home", "/var")


EDITS = [replaced, directories, names, name_gone, first_name_gone, attributes, many, to_a_link]


def edited(before: Tree, edit: Edit, where: Path, kind: Ext4 = KIND) -> Path:
    """The image after an edit, over that of `before`."""
    for name in ("below", "changes", "out", "work"):
        (where / name).mkdir(parents=True)
    before.write(where / "below" / ground.ROOT_TAR)
    image = build(kind.spec(uuid=UUID), where / "below", tools(), where / "built")
    tree = before.copy()
    edit(tree)
    changes.between(before, tree).write(where / "changes")
    inputs = {"image": image.parent, "changes": where / "changes", "tools": tools()}
    spec = kind.editor
    assert isinstance(spec, EditedImageSpec)
    edited_image.run(spec, inputs, where / "out", Context(work=where / "work", log=where / "log"))
    return where / "out" / seal.IMAGE


def content(image: Path, checkers: Path, tree: Tree) -> dict[str, tuple[object, ...]]:
    """What debugfs tells of everything in an image, without the numbers of inodes and blocks. (mke2fs leaves ctime and
    atime of what comes from a tar at 0.)
    """
    found: dict[str, tuple[object, ...]] = {}
    paths = ["", "lost+found", *(member.path for member in tree if member.path)]
    for path in paths:
        quoted = '"/' + path.replace('"', '""') + '"'
        told = tool(checkers, "debugfs", "-R", f"stat {quoted}", str(image))
        # A directory that shrank or grew in one image may have one block more than in the other.
        names = "Type|Mode|User|Group|Links|Fast link dest" + ("" if "Type: directory" in told else "|Size")
        facts = re.findall(rf"({names}):\s+(\S+)", told)
        times = re.findall(r"^ ?(mtime|crtime): (\S+)", told, re.MULTILINE)
        attributes = re.search(r"^Extended attributes:\n(.*?)^\S", f"{told}\nEXTENTS", re.MULTILINE | re.DOTALL)
        bytes_ = tool(checkers, "debugfs", "-R", f"cat {quoted}", str(image)) if "Type: regular" in told else ""
        ls = tool(checkers, "debugfs", "-R", f"ls -l {quoted}", str(image)) if "Type: directory" in told else ""
        inside = sorted(line.split(maxsplit=8)[8] for line in ls.splitlines() if len(line.split(maxsplit=8)) == 9)
        found[path] = facts, times, attributes and sorted(attributes[1].splitlines()), bytes_, inside
    return found


@pytest.mark.build
@pytest.mark.parametrize("edit", EDITS)
def test_as_if_written_anew(edit: Edit, tmp_path: Path, checkers: Path) -> None:
    before = Tree(awkward_root())
    image = edited(before, edit, tmp_path / "edited")
    tool(checkers, "e2fsck", "-fn", str(image))
    tree = before.copy()
    edit(tree)
    anew = build(KIND.spec(uuid=UUID), root_entry(tmp_path / "r", list(tree.settled())), tools(), tmp_path / "anew")
    wanted, found = (content(path, checkers, tree) for path in (anew, image))
    assert found.keys() == wanted.keys()
    for path in wanted:
        assert found[path] == wanted[path], path


@pytest.mark.build
def test_same_bytes_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(tree: Tree) -> None:
        for edit in (replaced, directories, names, attributes, many):
            edit(tree)

    first = edited(Tree(awkward_root()), everything, tmp_path / "a")
    for name, value in (("TZ", "Asia/Tokyo"), ("LC_ALL", "de_DE.UTF-8"), ("HOME", "/somewhere")):
        monkeypatch.setenv(name, value)
    before = os.umask(0o077)
    try:
        second = edited(Tree(awkward_root()), everything, tmp_path / "other place" / "b")
    finally:
        os.umask(before)
    assert digest.of_file(first) == digest.of_file(second)
    assert first.stat().st_mtime == second.stat().st_mtime == seal.mtime_of(digest.of_image(first))
    assert first.stat().st_mode & 0o7777 == 0o444


@pytest.mark.build
def test_no_edit_is_a_copy(tmp_path: Path) -> None:
    image = edited(Tree(awkward_root()), lambda _tree: None, tmp_path)
    assert digest.of_image(image) == digest.of_image(tmp_path / "built" / "out" / seal.IMAGE)


@pytest.mark.build
@pytest.mark.parametrize("count", [1, 3000])
def test_no_room(count: int, tmp_path: Path) -> None:
    """One file is too large, or there are more files than inodes."""
    size = (60 << 20) // count

    def fill(tree: Tree) -> None:
        for number in range(count):
            tree.put_file(f"/srv/{number}", bytes([1]) * size)

    kind = Ext4(size="32M")
    with pytest.raises(UserError, match=r"image\.size = 32M has no room") as raised:
        edited(Tree(awkward_root()), fill, tmp_path, kind)
    assert 'image.size = "' in raised.value.hint


@pytest.mark.build
def test_what_cannot_be_said(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="there is a line break in it"):
        edited(Tree(awkward_root()), lambda tree: tree.put_file("/srv/a\nb", b""), tmp_path)


def applied(before: Tree, wanted: Changes) -> Tree:
    """What changes make of a root, said in another way than debugfs is told."""
    settled = {member.path: member for member in before.settled()}
    for path in wanted.gone:
        assert not any(other.startswith(f"{path}/") for other in settled), "what is in it comes first"
        del settled[path]
    for member in wanted.put:
        assert (member.path in settled) == (member.path in wanted.kept)
        settled[member.path] = member
    return Tree(settled.values())


_paths = st.sampled_from(["a", "a/b", "a/b/c", "a/d", "e", "f"])
_steps = st.lists(st.tuples(st.sampled_from(["file", "dir", "link", "symlink", "gone"]), _paths, _paths), max_size=12)


def _made(tree: Tree, steps: list[tuple[str, str, str]]) -> Tree:
    for number, (what, path, other) in enumerate(steps):
        try:
            if what == "file":
                tree.put_file(f"/{path}", f"{number}".encode())
            elif what == "dir":
                tree.put_dir(f"/{path}", mode=0o700 + number)
            elif what == "symlink":
                tree.put_symlink(f"/{path}", "/nowhere")
            elif what == "gone":
                tree.remove(f"/{path}")
            elif (file := tree.get(f"/{other}")) is not None and file.kind == "file" and tree.get(f"/{path}") is None:
                tree.merge([Member(path, "link", 0o644, target=file.path)])
        except StepFailed:  # a file where a directory is wanted, or the other way
            continue
    return tree


@given(first=_steps, then=_steps)
def test_changes_make_one_root_of_another(first: list[tuple[str, str, str]], then: list[tuple[str, str, str]]) -> None:
    before = _made(Tree(), first)
    after = _made(before.copy(), then)
    wanted = changes.between(before, after)
    rows = [(m.path, m.kind, m.mode, m.target, m.data) for m in after.settled()]
    assert [(m.path, m.kind, m.mode, m.target, m.data) for m in applied(before, wanted).settled()] == rows
    links = [member.target for member in after.settled() if member.kind == "link"]
    assert all(count == 1 + links.count(file) for file, count in wanted.names.items())


def test_changes_are_kept_in_an_entry(tmp_path: Path) -> None:
    before = Tree(awkward_root())
    after = before.copy()
    for edit in (replaced, directories, names):
        edit(after)
    wanted = changes.between(before, after)
    wanted.write(tmp_path)
    found = changes.read(tmp_path)
    assert (found.gone, found.kept) == (wanted.gone, wanted.kept)
    assert [member.but(data=b"") for member in found.put] == [member.but(data=b"") for member in wanted.put]
