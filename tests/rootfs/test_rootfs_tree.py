"""A root edited as an archive is the root that the same edits on a file system would give."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest
import untar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umlbuild.errors import StepFailed
from umlbuild.host import tarball
from umlbuild.host.tarball import Member
from umlbuild.host.tree import Tree


def merged() -> Tree:
    """A small merged-/usr root."""
    tree = Tree()
    for path in ("usr/lib/systemd/system", "usr/bin", "etc", "usr/share/doc/a", "usr/share/doc/b", "run"):
        tree.put_dir(path)
    tree.put_symlink("/lib", "usr/lib")
    tree.put_symlink("/bin", "/usr/bin")
    tree.put_dir("/var")
    tree.put_symlink("/var/run", "/run")
    tree.put_file("/usr/share/doc/a/copyright", b"c")
    tree.put_file("/usr/share/doc/b/readme.gz", b"r")
    return tree


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/lib/systemd/x", "usr/lib/systemd/x"),
        ("/bin/new/deep", "usr/bin/new/deep"),
        ("/var/run/lock", "run/lock"),
        ("/lib/../etc/./passwd", "usr/etc/passwd"),
        ("/etc/../../../etc", "etc"),
        ("/", ""),
        ("/nowhere/at/all", "nowhere/at/all"),
    ],
)
def test_resolve(path: str, leads_to: str) -> None:
    assert merged().resolve(path) == leads_to


def test_merged_directories_stay_links() -> None:
    tree = merged()
    tree.put_file("/lib/systemd/system/x.service", b"u")
    tree.put_dir("/lib")
    assert tree.read("/usr/lib/systemd/system/x.service") == b"u"
    lib = tree.get("/lib", follow=False)
    assert lib is not None
    assert (lib.kind, lib.target) == ("symlink", "usr/lib")


def test_a_loop_of_links_is_said() -> None:
    tree = Tree()
    tree.put_symlink("/a", "b")
    tree.put_symlink("/b", "a")
    with pytest.raises(StepFailed, match="loop"):
        tree.resolve("/a/x")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/usr/share/doc/*", {"usr/share/doc/a", "usr/share/doc/b"}),
        ("/usr/share/doc/*/*.gz", {"usr/share/doc/b/readme.gz"}),
        ("/usr/**/*.gz", {"usr/share/doc/b/readme.gz"}),
        ("/usr/*.gz", set()),
        ("/lib", {"lib"}),
        ("/lib/s?stem[d]", {"usr/lib/systemd"}),
        ("/none", set()),
    ],
)
def test_matching(pattern: str, found: set[str]) -> None:
    assert set(merged().matching(pattern)) == found


def test_a_directory_is_not_replaced_by_a_file() -> None:
    with pytest.raises(StepFailed, match="/usr/bin: is a directory"):
        merged().put_file("/usr/bin", b"")
    with pytest.raises(StepFailed, match="not a directory"):
        merged().put_file("/usr/share/doc/a/copyright/x", b"")
    with pytest.raises(StepFailed, match="cannot be a directory"):
        merged().put_dir("/usr/share/doc/a/copyright")
    with pytest.raises(StepFailed, match="root itself"):
        merged().remove("/")


def test_a_file_replaces_a_symlink_itself() -> None:
    tree = merged()
    tree.put_symlink("/etc/resolv.conf", "../run/systemd/resolv.conf")
    tree.put_file("/etc/resolv.conf", b"nameserver 10.0.2.3\n")
    assert tree.read("/etc/resolv.conf") == b"nameserver 10.0.2.3\n"
    assert tree.get("/run/systemd/resolv.conf") is None


def test_hard_links_live_on(tmp_path: Path) -> None:
    tree = Tree([
        Member("a", "file", 0o755, uid=7, data=b"shared", xattrs={"user.x": b"1"}),
        Member("b", "link", 0o755, target="a"),
        Member("c", "link", 0o755, target="a"),
    ])  # fmt: skip
    tree.remove("/a")
    tree.write(tmp_path / "t.tar")
    again = Tree.of(tmp_path / "t.tar")
    first, second = (member for member in again if member.path in ("b", "c"))
    assert (first.kind, first.uid, dict(first.xattrs), tarball.content(first)) == (
        "file", 7, {"user.x": b"1"}, b"shared",
    )  # fmt: skip
    assert (second.kind, second.target) == ("link", "b")


def test_a_hard_link_that_sorts_first_gets_the_content(tmp_path: Path) -> None:
    tree = Tree([Member("z", "file", 0o644, data=b"d"), Member("a", "link", 0o644, target="z")])
    tree.write(tmp_path / "t.tar")
    assert [(m.path, m.kind, m.target) for m in tarball.read(tmp_path / "t.tar")] == [
        ("", "dir", ""), ("a", "file", ""), ("z", "link", "a"),
    ]  # fmt: skip


def test_merging_goes_through_links_and_keeps_directories() -> None:
    tree = merged()
    tree.put_dir("/usr/lib/modules", mode=0o700)
    tree.merge([
        Member("lib", "dir", 0o755),
        Member("lib/modules", "dir", 0o755),
        Member("lib/modules/7.3", "dir", 0o755),
        Member("lib/modules/7.3/a.ko", "file", 0o644, data=b"k"),
        Member("lib/modules/7.3/b.ko", "link", 0o644, target="lib/modules/7.3/a.ko"),
    ])  # fmt: skip
    assert tree.read("/usr/lib/modules/7.3/b.ko") == b"k"
    kept = tree.get("/usr/lib/modules")
    assert kept is not None
    assert kept.mode == 0o700
    assert tree.names("/lib/modules/7.3") == ["a.ko", "b.ko"]


def test_untouched_members_keep_their_bytes(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a", "m", "z"):
            info = tarfile.TarInfo(f"./{name}")
            info.uname, info.pax_headers = "odd", {"comment": "kept as it is", "mtime": "1.5"}
            tar.addfile(info)
    before = archive.read_bytes()
    tree = Tree.of(archive)
    tree.put_file("/n", b"new")
    tree.write(tmp_path / "b.tar")
    after = (tmp_path / "b.tar").read_bytes()
    for member in tarball.read(archive):
        assert member.raw is not None
        assert before[member.raw.start : member.raw.end] in after


NAMES = st.sampled_from(["a", "b", "c", "d"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("file"), PATHS, st.binary(max_size=700)),
        st.tuples(st.just("dir"), PATHS, st.just(b"")),
        st.tuples(st.just("remove"), PATHS, st.just(b"")),
        st.tuples(st.just("link"), PATHS, PATHS.map(str.encode)),
    ),
    max_size=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EDITS, EDITS)
def test_edits_are_those_of_a_file_system(
    tmp_path: Path,
    first: list[tuple[str, str, bytes]],
    second: list[tuple[str, str, bytes]],
) -> None:
    """The model is a real directory: what Tree refuses, it must leave alone too."""
    model = tmp_path / "model"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir()
    tree = Tree()
    for round_ in (first, second):
        for verb, path, data in round_:
            apply(tree, model, verb, path, data)
        tree.write(tmp_path / "t.tar")
        os.replace(tmp_path / "t.tar", tmp_path / "kept.tar")
        tree = Tree.of(tmp_path / "kept.tar")
    assert {m.path: tarball.content(m) if m.kind == "file" else m.kind for m in tree if m.path} == on_disk(model)
    into = tmp_path / "into"
    shutil.rmtree(into, ignore_errors=True)
    with tarfile.open(tmp_path / "kept.tar") as tar:
        untar.unpack(tar, into)
    assert on_disk(into) == on_disk(model)


def apply(tree: Tree, model: Path, verb: str, path: str, data: bytes) -> None:
    at = model / path
    try:
        if verb == "file":
            tree.put_file(f"/{path}", data)
        elif verb == "dir":
            tree.put_dir(f"/{path}")
        elif verb == "remove":
            tree.remove(f"/{path}")
        else:
            old = tree.get(f"/{data.decode()}")
            if old is None or old.kind != "file" or old.path == path:
                return
            tree.merge([Member(path, "link", 0o644, target=old.path)])
    except StepFailed:
        return
    if verb == "file":
        at.parent.mkdir(parents=True, exist_ok=True)
        at.unlink(missing_ok=True)
        at.write_bytes(data)
    elif verb == "dir":
        at.mkdir(parents=True, exist_ok=True)
    elif verb == "remove":
        if at.is_dir():
            shutil.rmtree(at)
        elif at.parent.is_dir():
            at.unlink(missing_ok=True)
    else:
        content = model / data.decode()
        if not at.exists() or not at.samefile(content):
            at.parent.mkdir(parents=True, exist_ok=True)
            at.unlink(missing_ok=True)
            at.hardlink_to(content)


def on_disk(top: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for path in sorted(top.rglob("*"), key=lambda p: tarball.order_of(str(p.relative_to(top)))):
        name = str(path.relative_to(top))
        if path.is_dir():
            found[name] = "dir"
        elif path.stat().st_nlink > 1 and path.stat().st_ino in inodes:
            found[name] = "link"
        else:
            inodes[path.stat().st_ino] = name
            found[name] = path.read_bytes()
    return found
