"""The contract of every image kind, with the real tools: right content, same bytes, sparse."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imagekit
import pytest
from imagekit import UUID, awkward_root, build, root_entry, tool

from umlbuild import digest
from umlbuild.errors import StepFailed, UserError
from umlbuild.host import sparse, tooltree
from umlbuild.host.seal import mtime_of
from umlbuild.host.tarball import Member
from umlbuild.kinds.images import Disk
from umlbuild.kinds.images.base import ImageKind
from umlbuild.kinds.images.btrfs import Btrfs
from umlbuild.kinds.images.erofs import Erofs
from umlbuild.kinds.images.ext4 import Ext4
from umlbuild.kinds.images.squashfs import Squashfs
from umlbuild.kinds.images.xfs import Xfs
from umlbuild.stages.image import ImageTooSmall

pytestmark = pytest.mark.build

KINDS: list[ImageKind] = [
    Ext4(size="64M"),
    Ext4(size="auto"),
    Squashfs(),
    Squashfs(compression="xz"),
    Erofs(),
    Erofs(compression="zstd", level=5),
    Erofs(compression="none"),
    Xfs(size="300M"),
    Xfs(size="auto+64M"),
    Btrfs(size="256M"),
    Btrfs(size="auto"),
]


def name_of(kind: ImageKind) -> str:
    return re.sub(r"\W+", "-", repr(kind))


def tools_of(kind: ImageKind | Disk) -> Path:
    return imagekit.tools_entry(kind.tools, kind.programs, kind.libraries)


@pytest.fixture
def odd_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another time zone, umask and locale than usual."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("HOME", "/somewhere")
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_same_bytes_everywhere(
    kind: ImageKind, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tools, members = tools_of(kind), awkward_root()
    first = build(kind.spec(uuid=UUID), root_entry(tmp_path / "r1", members), tools, tmp_path / "a")
    request.getfixturevalue("odd_surroundings")
    second = build(
        kind.spec(uuid=UUID), root_entry(tmp_path / "other place" / "r2", members), tools,
        tmp_path / "other place" / "b",
    )  # fmt: skip
    assert digest.of_file(first) == digest.of_file(second)
    assert first.stat().st_mtime == second.stat().st_mtime == mtime_of(digest.of_image(first))
    assert stat.S_IMODE(first.stat().st_mode) == stat.S_IMODE(second.stat().st_mode) == 0o444
    assert first.stat().st_size % 4096 == 0


@pytest.mark.parametrize("kind", [Ext4(), Xfs()], ids=name_of)
def test_libraries_are_preloaded_from_a_path_with_blanks(kind: ImageKind, tmp_path: Path) -> None:
    entry = tmp_path / "a blank or two"
    entry.symlink_to(tools_of(kind))
    preload = kind.spec(uuid=UUID).preload
    argv = [*tooltree.tool_argv(entry, kind.programs[-1], preload=preload), "-V"]
    env = {"LD_DEBUG": "files"}
    said = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False).stderr
    assert preload and "cannot be preloaded" not in said
    assert all(f"calling init: {entry}" in said and Path(name).name in said for name in preload)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_sparse(kind: ImageKind, tmp_path: Path) -> None:
    members = awkward_root()
    image = build(kind.spec(uuid=UUID), root_entry(tmp_path / "r", members), tools_of(kind), tmp_path / "a")
    content = sum(-(-member.size // 4096) * 4096 for member in members if any(imagekit_data(member)))
    metadata = 2 << 20  # superblocks, tables; the content here is small
    assert sparse.used(image) <= content * 1.05 + metadata
    if isinstance(kind, Ext4 | Xfs | Btrfs) and kind.size != "auto":
        assert sparse.used(image) < image.stat().st_size / 10


def imagekit_data(member: Member) -> bytes:
    return member.data if isinstance(member.data, bytes) else b""


def test_ext4_content(tmp_path: Path, checkers: Path) -> None:
    kind = Ext4(size="64M", label="uml")
    image = build(kind.spec(uuid=UUID), root_entry(tmp_path / "r", awkward_root()), tools_of(kind), tmp_path / "a")
    tool(checkers, "e2fsck", "-fn", str(image))

    def debugfs(command: str) -> str:
        return tool(checkers, "debugfs", "-R", command, str(image))

    listing = "".join(debugfs(f"ls -l {path}") for path in ("/", "/bin", "/dev", "/etc", "/home", "/var"))
    rows = {row[8]: (row[1], row[3], row[4]) for row in (line.split(maxsplit=8) for line in listing.splitlines())
            if len(row) == 9}  # fmt: skip
    assert rows["su"] == ("104755", "0", "0")
    assert rows["shadow"] == ("100640", "0", "42")
    assert rows["shadow-"] == ("100000", "0", "42")
    assert rows["u"] == ("42770", "100000", "70000")
    assert rows["tmp"] == ("41777", "0", "0")
    assert rows["lost+found"] == ("40700", "0", "0")
    assert rows["with space"] == ("100644", "0", "0")
    assert rows["null"][0] == "20666" and "01:03" in debugfs("stat /dev/null")
    assert "Links: 2" in debugfs("stat /bin/ping4")
    assert imagekit.CAPABILITY.hex(" ") in debugfs("ea_get -x /bin/ping security.capability")
    assert "hello" in debugfs("ea_get /home/u/note user.note")
    assert "system.posix_acl_access" in debugfs("ea_list /var/acl")
    assert debugfs("cat /etc/ünï-☃") == "snow\n"
    header = debugfs("stats -h")
    assert re.search(r"Filesystem UUID:\s+" + UUID, header)
    assert re.search(r"Filesystem volume name:\s+uml", header)
    # the guest must not write out inode tables at its first start
    assert "INODE_UNINIT" not in debugfs("stats")


def test_squashfs_content(tmp_path: Path, checkers: Path) -> None:
    kind = Squashfs()
    image = build(kind.spec(uuid=UUID), root_entry(tmp_path / "r", awkward_root()), tools_of(kind), tmp_path / "a")
    listing = tool(checkers, "unsquashfs", "-lln", str(image))
    for line in (
        r"drwxr-xr-x 0/0 .* squashfs-root$",  # sqfstar's own idea is 0777
        r"-rwsr-xr-x 0/0 .* squashfs-root/bin/su$",
        r"-rw-r----- 0/42 .* squashfs-root/etc/shadow$",
        r"---------- 0/42 .* squashfs-root/etc/shadow-$",
        r"drwxrws--- 100000/70000 .* squashfs-root/home/u$",
        r"drwxrwxrwt 0/0 .* squashfs-root/tmp$",
        r"crw-rw-rw- 0/0 +1, +3 .* squashfs-root/dev/null$",
        r".* squashfs-root/etc/with space$",
    ):
        assert re.search(line, listing, re.MULTILINE), line
    capability = tool(checkers, "rdsquashfs", "-x", "/bin/ping", str(image))
    assert capability.strip() == f"security.capability=0x{imagekit.CAPABILITY.hex()}"
    assert "user.note=hello" in tool(checkers, "rdsquashfs", "-x", "/home/u/note", str(image))
    assert tool(checkers, "unsquashfs", "-cat", str(image), "etc/ünï-☃") == "snow\n"


@pytest.mark.parametrize("compression", ["none", "lz4hc", "zstd"])
def test_erofs_content(compression: str, tmp_path: Path, checkers: Path) -> None:
    kind = Erofs.model_validate({"compression": compression})
    image = build(kind.spec(uuid=UUID), root_entry(tmp_path / "r", awkward_root()), tools_of(kind), tmp_path / "a")
    tool(checkers, "fsck.erofs", str(image))

    def dump(path: str) -> str:
        return tool(checkers, "dump.erofs", f"--path={path}", str(image))

    facts = {path: re.search(r"Uid: (\d+) +Gid: (\d+) +Access: (\d+)", dump(path)) for path in (
        "/", "/bin/su", "/etc/shadow", "/etc/shadow-", "/home/u", "/tmp")}  # fmt: skip
    assert {path: match.groups() for path, match in facts.items() if match} == {
        "/": ("0", "0", "0755"),
        "/bin/su": ("0", "0", "0755"),  # dump.erofs prints nine bits only; the boot test sees the rest
        "/etc/shadow": ("0", "42", "0640"),
        "/etc/shadow-": ("0", "42", "0000"),
        "/home/u": ("100000", "70000", "0770"),
        "/tmp": ("0", "0", "0777"),
    }
    assert "Xattr size: 48" in dump("/bin/ping")
    assert "Xattr size: 28" in dump("/home/u/note")
    assert "Xattr size: 60" in dump("/var/acl")


def test_xfs_content(tmp_path: Path, checkers: Path) -> None:
    kind = Xfs(size="300M")
    where = tmp_path / "a"
    image = build(kind.spec(uuid=UUID), root_entry(tmp_path / "r", awkward_root()), tools_of(kind), where)
    tool(checkers, "xfs_repair", "-n", "-f", str(image))

    def inode(path: str, *fields: str) -> list[str]:
        argv = ["-r", "-c", f"path {path}", "-c", f"print {' '.join(fields)}", str(image)]
        text = tool(checkers, "xfs_db", *argv)
        return [line.partition(" = ")[2] for line in text.splitlines()]

    owner = ("core.mode", "core.uid", "core.gid")
    assert inode("/", *owner) == ["040755", "0", "0"]
    assert inode("/bin/su", *owner) == ["0104755", "0", "0"]
    assert inode("/etc/shadow", *owner) == ["0100640", "0", "42"]
    assert inode("/etc/shadow-", *owner) == ["0100000", "0", "42"]
    assert inode("/home/u", *owner) == ["042770", "100000", "70000"]
    assert inode("/tmp", *owner) == ["041777", "0", "0"]
    assert inode("/dev/null", "core.mode") == ["020666"]
    assert inode("/bin/ping4", "core.nlinkv2", "core.size") == ["2", "5000"]
    assert inode("/etc/link", "u3.symlink") == ['"shadow"']
    assert inode("/home/u/note", "a.sfattr.list[0].value") == ['"hello"']
    name, value = inode("/bin/ping", "a.sfattr.list[0].name", "a.sfattr.list[0].value")
    assert name == '"capability"' and value.startswith(r'"\001\000\000\002\000 ')
    assert "with space" in tool(checkers, "xfs_db", "-r", "-c", "path /etc", "-c", "ls", str(image))
    assert "left out: /var/acl: system.posix_acl_access" in (where / "log").read_text()


@pytest.mark.parametrize(
    ("disk", "check"),
    [
        (Disk(size="16M"), ("e2fsck", "-fn")),
        (Disk(size="8G", label="data"), ("e2fsck", "-fn")),
        (Disk(size="300M", filesystem="xfs"), ("xfs_repair", "-n", "-f")),
        (Disk(size="128M", filesystem="btrfs", label="data"), ("btrfs", "check")),
        (Disk(size="1M", filesystem="none"), ()),
    ],
    ids=lambda value: str(getattr(value, "filesystem", "")),
)
def test_empty_data_disks(disk: Disk, check: tuple[str, ...], tmp_path: Path, checkers: Path) -> None:
    tools = tools_of(disk) if disk.tools else tmp_path
    first = build(disk.spec(uuid=UUID), None, tools, tmp_path / "a")
    second = build(disk.spec(uuid=UUID), None, tools, tmp_path / "b")
    assert digest.of_file(first) == digest.of_file(second)
    assert sparse.used(first) < 5 << 20
    if check:
        tool(checkers, *check, str(first), log=tmp_path / "log")


def test_too_small_says_how_much_and_what(tmp_path: Path) -> None:
    members = [
        Member("", "dir", 0o755),
        Member("usr", "dir", 0o755),
        Member("usr/lib", "dir", 0o755),
        Member("usr/lib/large", "file", 0o644, data=bytes(range(256)) * 4 * (40 << 10)),
        Member("usr/small", "file", 0o644, data=b"s"),
    ]
    kind = Ext4(size="16M")
    with pytest.raises(ImageTooSmall) as raised:
        build(kind.spec(uuid=UUID), root_entry(tmp_path / "r", members), tools_of(kind), tmp_path / "a")
    error = raised.value
    assert isinstance(error, UserError) and error.exit_code == 2
    assert "image.size = 16M is smaller than its content (about 41M): use at least" in error.message
    assert error.largest[0] == ("/usr/lib", 40 << 20)
    assert "40M  /usr/lib" in error.message
    # what it says is true
    enough = f"{error.enough >> 20}M"
    assert f'image.size = "{enough}"' in error.hint
    build(Ext4(size=enough).spec(uuid=UUID), root_entry(tmp_path / "r", members), tools_of(kind), tmp_path / "b")


def test_content_that_fits_only_without_metadata(tmp_path: Path) -> None:
    """mke2fs itself finds out; the message is the same."""
    data = os.urandom(1 << 20) * 14
    members = [Member("", "dir", 0o755), Member("a", "file", 0o644, data=data)]
    kind = Ext4(size="16M")
    with pytest.raises(ImageTooSmall, match=r"image\.size = 16M is smaller than its content"):
        build(kind.spec(uuid=UUID), root_entry(tmp_path / "r", members), tools_of(kind), tmp_path / "a")


@pytest.mark.parametrize("count", [0, 2000])
def test_automatic_size_has_room_for_its_spare(count: int, tmp_path: Path, checkers: Path) -> None:
    members = [Member("", "dir", 0o755), *(Member(f"f{n:05}", "file", 0o644, data=b"x") for n in range(count))]
    kind = Ext4(size="auto+32M")
    image = build(kind.spec(uuid=UUID), root_entry(tmp_path / "r", members), tools_of(kind), tmp_path / "a")
    header = tool(checkers, "debugfs", "-R", "stats -h", str(image))
    free, inodes = (int(re.search(rf"{word}:\s+(\d+)", header)[1])  # type: ignore[index]
                    for word in ("Free blocks", "Free inodes"))  # fmt: skip
    assert free * 4096 > (32 << 20) - (2 << 20)
    assert inodes > 200


@pytest.mark.parametrize("name", [":comment", "$", "tab\there"])
def test_xfs_refuses_names_it_cannot_hold(name: str, tmp_path: Path) -> None:
    members = [Member("", "dir", 0o755), Member(name, "file", 0o644)]
    with pytest.raises(StepFailed, match=r"cannot be said to mkfs\.xfs"):
        kind = Xfs(size="300M")
        build(kind.spec(uuid=UUID), root_entry(tmp_path / "r", members), tools_of(kind), tmp_path / "a")
