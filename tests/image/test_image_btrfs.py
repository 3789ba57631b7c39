"""The btrfs that is written without mkfs: read back by btrfs-progs, used and changed by a real kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import imagekit
import pytest
from bootkit import boot, busybox_root, sparse_copy, with_built_in
from imagekit import UUID, awkward_root, build, root_entry, tool
from test_image_boot import image_of, members

from umlbuild import digest
from umlbuild.errors import StepFailed
from umlbuild.host import btrfs, sparse
from umlbuild.host.btrfs_files import inodes_of
from umlbuild.host.btrfs_layout import DATA, SUPERS, Device, NoRoom
from umlbuild.host.btrfs_tree import LARGEST_ITEM, NODE, Tree, name_hash
from umlbuild.host.process import EPOCH
from umlbuild.host.tarball import Member, Span
from umlbuild.kinds.images import Disk
from umlbuild.kinds.images.btrfs import Btrfs
from umlbuild.stages.image import ImageTooSmall

pytestmark = [pytest.mark.build, pytest.mark.timeout(1800)]

KIND = Btrfs(size="256M", label="uml")
ACL_WHO = b"\x02\x00\x07\x00" + (65534).to_bytes(4, "little")
"""user:65534:rwx, for the ACL of a file that is root's."""


def image(members: list[Member], where: Path, kind: Btrfs = KIND) -> Path:
    tools = imagekit.tools_entry(kind.tools, kind.programs, kind.libraries)
    return build(kind.spec(uuid=UUID), root_entry(where / "root", members), tools, where)


def blank(path: Path, size: int) -> Path:
    with path.open("xb") as file:
        os.truncate(file.fileno(), size)
    return path


def check(checkers: Path, path: Path) -> None:
    tool(checkers, "btrfs", "check", "--readonly", "--check-data-csum", str(path))


def items(checkers: Path, path: Path, tree: str = "fs") -> list[str]:
    dump = tool(checkers, "btrfs", "inspect-internal", "dump-tree", "-t", tree, str(path))
    return re.split(r"^\titem \d+ key ", dump, flags=re.MULTILINE)[1:]


def test_content(tmp_path: Path, checkers: Path) -> None:
    path = image(awkward_root(), tmp_path)
    found = items(checkers, path)
    names = {
        match[2]: match[1]
        for item in found if " DIR_INDEX " in item
        if (match := re.search(r"location key \((\d+) INODE_ITEM 0\).*?name: ([^\n]+)", item, re.DOTALL))
    }  # fmt: skip
    assert names["ping"] == names["ping4"]

    def said(name: str, kind: str = "INODE_ITEM 0") -> str:
        number = names.get(name, "256")
        return " ".join(" ".join(item.split()) for item in found if item.startswith(f"({number} {kind}"))

    owners = {name: re.search(r"mode (\d+) links (\d+) uid (\d+) gid (\d+) rdev (\d+)", said(name)) for name in (
        "/", "bin", "ping", "su", "null", "fifo", "link", "shadow", "shadow-", "tmp", "u")}  # fmt: skip
    assert {name: match.groups() for name, match in owners.items() if match} == {
        "/": ("40755", "1", "0", "0", "0"),
        "bin": ("40755", "1", "0", "0", "0"),
        "ping": ("100755", "2", "0", "0", "0"),
        "su": ("104755", "1", "0", "0", "0"),
        "null": ("20666", "1", "0", "0", str(1 << 20 | 3)),
        "fifo": ("10600", "1", "0", "0", "0"),
        "link": ("120777", "1", "0", "0", "0"),
        "shadow": ("100640", "1", "0", "42", "0"),
        "shadow-": ("100000", "1", "0", "42", "0"),
        "tmp": ("41777", "1", "0", "0", "0"),
        "u": ("42770", "1", "100000", "70000", "0"),
    }
    for name in ("/", "ping", "null"):
        assert said(name).count(f"time {EPOCH}.0") == 4
    assert re.search(r"data_len 20 name_len 19 name: security\.capability", said("ping", "XATTR_ITEM"))
    assert "name: user.note data hello" in said("note", "XATTR_ITEM")
    assert re.search(r"data_len 44 name_len 23 name: system\.posix_acl_access", said("acl", "XATTR_ITEM"))
    header = tool(checkers, "btrfs", "inspect-internal", "dump-super", str(path))
    assert re.search(r"^label\s+uml$", header, re.MULTILINE)
    assert re.search(rf"^fsid\s+{UUID}$", header, re.MULTILINE)

    out = tmp_path / "restored"
    out.mkdir()
    tool(checkers, "btrfs", "restore", "-S", str(path), str(out))
    for member in awkward_root():
        if member.kind == "file":
            assert (out / member.path).read_bytes() == member.data, member.path
    assert (out / "etc/link").readlink() == Path("shadow")


def test_large_trees_and_many_chunks(tmp_path: Path, checkers: Path) -> None:
    """Names that collide, leaves below nodes, several chunks of data on both sides of the superblock's copy."""
    zeros = blank(tmp_path / "zeros", 1200 << 20)
    with zeros.open("r+b") as file:
        file.seek(1100 << 20)
        file.write(os.urandom(5000))
    one, other = colliding()
    attributes = {f"user.{n}": b"v" * 3000 for n in range(20)}
    root = [
        Member("", "dir", 0o755),
        *(Member(f"file-{n:06}", "file", 0o644, data=b"x" * 300) for n in range(30_000)),
        Member("big", "file", 0o644, data=Span(zeros, 0, (1200 << 20) - 7)),
        Member("end", "file", 0o644, data=b"e" * 9000),
        *(Member(name.decode(), "file", 0o600, xattrs=attributes) for name in (one, other)),
    ]
    path = blank(tmp_path / "image", 3 << 30)
    btrfs.write(path, root, uuid=UUID, label="")
    check(checkers, path)
    assert sparse.used(path) < 64 << 20
    kinds = [item.split()[1] for item in items(checkers, path, "extent")]
    assert kinds.count("BLOCK_GROUP_ITEM") == 5  # system, data before the copy, two more, metadata
    collided = [item for item in items(checkers, path) if f"DIR_ITEM {name_hash(one)})" in item]
    assert len(collided) == 1 and one.decode() in collided[0] and other.decode() in collided[0]
    out = tmp_path / "restored"
    out.mkdir()
    tool(checkers, "btrfs", "restore", "--path-regex", "^/(|big|end)$", str(path), str(out))
    assert digest.of_file(out / "big") == digest.of_bytes(zeros.read_bytes()[:-7])
    assert (out / "end").read_bytes() == b"e" * 9000


def colliding() -> tuple[bytes, bytes]:
    """Two names of one hash; it is linear, so a birthday's search is short."""
    seen: dict[int, bytes] = {}
    for n in range(10_000_000):
        name = b"c%d" % n
        if (known := seen.setdefault(name_hash(name), name)) != name:
            return known, name
    raise AssertionError("no two names collide")


@pytest.mark.parametrize("size", [128 << 20, (128 << 20) + 4096, 300 << 30], ids=["128M", "128M+4K", "300G"])
def test_empty_of_every_size(size: int, tmp_path: Path, checkers: Path) -> None:
    path = blank(tmp_path / "image", size)
    btrfs.write(path, [], uuid=UUID, label="x" * 255)
    check(checkers, path)
    assert sparse.used(path) < 1 << 20
    for number, at in enumerate(SUPERS):
        if at < size:
            header = tool(checkers, "btrfs", "inspect-internal", "dump-super", "-s", str(number), str(path))
            assert re.search(r"csum\s+0x\w+ \[match\]", header) and re.search(rf"bytenr\s+{at}\n", header)


def test_same_bytes_in_another_process(tmp_path: Path) -> None:
    """With another order of hashes, time zone and umask; nothing else of the surroundings is looked at."""
    first = image(awkward_root(), tmp_path / "a")
    second = blank(tmp_path / "image", 256 << 20)
    script = f"""
        from pathlib import Path
        from umlbuild.host import btrfs, tarball
        members = tarball.read(Path({str(tmp_path / "a/root/rootfs.tar")!r}))
        btrfs.write(Path({str(second)!r}), members, uuid={UUID!r}, label="uml")
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120,
        env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}, cwd=Path(__file__).parents[2], umask=0o077,
    )  # fmt: skip
    assert digest.of_file(first) == digest.of_file(second)


def test_too_small_says_how_much(tmp_path: Path) -> None:
    """All the data fits, its checksums and inodes do not."""
    root = [Member("", "dir", 0o755), Member("a", "file", 0o644, data=os.urandom(1 << 20) * 118)]
    with pytest.raises(ImageTooSmall, match=r"image\.size = 128M is smaller than its content") as raised:
        image(root, tmp_path / "a", Btrfs(size="128M"))
    image(root, tmp_path / "b", Btrfs(size=f"{raised.value.enough >> 20}M"))


def test_no_room_for_what_an_automatic_size_does_not_count() -> None:
    device = Device(128 << 20)
    device.system()
    with pytest.raises(NoRoom, match="200000000 bytes of data do not fit into 134217728") as raised:
        device.data(200_000_000)
    assert "make image.size larger" in raised.value.hint
    with pytest.raises(NoRoom, match="bytes of metadata do not fit"):
        device.metadata(120 << 20)


@pytest.mark.parametrize("used", [0, 4096, 58 << 20, 59 << 20, 60 << 20, 1500 << 20])
def test_no_chunk_is_over_a_superblock(used: int) -> None:
    device = Device(600 << 30)
    chunks = [device.system(), *device.data(used), device.metadata(300 << 20)]
    assert sum(chunk.used for chunk in chunks if chunk.use == DATA) == used
    assert all(chunk.used <= chunk.length for chunk in chunks)
    ends = 1 << 20
    for chunk in sorted(chunks, key=lambda chunk: chunk.start):
        assert chunk.start >= ends
        ends = chunk.start + chunk.length
        assert not any(chunk.start < at + 65536 and at < ends for at in SUPERS)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([Member("b", "link", 0o644, target="nothing")], "/b: a hard link to /nothing, which is not there"),
        ([Member("a", "symlink", 0o777, target="x"), Member("a/b", "file", 0o644)], "/a/b: /a is no directory"),
        ([Member("a", "file", 0o644, xattrs={"user.x": bytes(LARGEST_ITEM)})], "/a: an attribute, or its hard links"),
    ],
    ids=["link", "below", "attribute"],
)
def test_refused(extra: list[Member], said: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as raised:
        btrfs.write(blank(tmp_path / "image", 128 << 20), [Member("", "dir", 0o755), *extra], uuid=UUID, label="")
    assert said in raised.value.message


def test_a_later_member_replaces_an_earlier() -> None:
    root = inodes_of([
        Member("d/a", "file", 0o644, data=b"old"), Member("d/a", "file", 0o600, data=b"new"),
        Member("d", "dir", 0o700), Member("d/b", "link", 0o600, target="d/a"),
    ])  # fmt: skip
    assert [(inode.number, inode.member.path, inode.member.mode) for inode in root] == [
        (256, "", 0o755), (257, "d", 0o700), (258, "d/a", 0o600),
    ]  # fmt: skip
    assert root[2].names == {257: [(2, b"a"), (3, b"b")]}


def test_trees_of_any_height() -> None:
    assert [Tree(5, (((n, 1, 0), bytes(8000)) for n in range(count))).levels for count in (0, 1, 3, 4)] == [
        [0], [0], [0, 0, 1], [0, 0, 1],
    ]  # fmt: skip
    high = Tree(5, (((n, 1, 0), bytes(8000)) for n in range(2 * 493 + 1)))
    assert high.level == 2 and high.blocks == 494 + 2 + 1 and high.root(0) == 496 * NODE


NODES = """
for path in /n/char /n/block /n/fifo; do echo "node $(stat -c '%n %F %t:%T' $path)"; done
echo "time $(stat -c '%Y' /n/fifo)"
echo "mine $(su nobody -c 'cat /n/acl')"
echo "theirs $(su nobody -c 'cat /n/none' 2>&1)"
find / -xdev -type f -exec cat {} + >/dev/null && echo "all can be read"
dmesg | grep -i -E 'btrfs.*(error|warn|corrupt|critical)' && echo "the kernel complains"
"""


@pytest.mark.boot
def test_nodes_and_acl_in_the_guest(tmp_path: Path) -> None:
    linux = with_built_in("BTRFS_FS", "BTRFS_FS_POSIX_ACL", "DEVTMPFS_MOUNT")
    acl = imagekit.ACL[:12] + ACL_WHO + imagekit.ACL[12:]
    root = busybox_root(NODES, [
        Member("n", "dir", 0o755),
        Member("n/acl", "file", 0o670, data=b"yes\n", xattrs={"system.posix_acl_access": acl}),
        Member("n/block", "block", 0o600, device=(98, 17)),
        Member("n/char", "char", 0o600, device=(254, 300)),
        Member("n/fifo", "fifo", 0o600, mtime=1_234_567_890),
        Member("n/none", "file", 0o640, data=b"no\n"),
    ])  # fmt: skip
    path = image_of(Btrfs(size="128M"), root, tmp_path / "i")
    console = boot(tmp_path / "run", linux, f"ubd0={tmp_path}/run/cow,{path}", "root=/dev/ubda",
                   "rootfstype=btrfs", "rw")  # fmt: skip
    lines = console.splitlines()
    for line in (
        "node /n/char character special file fe:12c", "node /n/block block special file 62:11", "node /n/fifo fifo 0:0",
        "time 1234567890", "mine yes", "all can be read",
    ):  # fmt: skip
        assert line in lines, console
    assert "theirs cat: can't open '/n/none': Permission denied" in lines
    assert "the kernel complains" not in console


WORK = """
mount -o remount,rw,discard /
case $(cat /proc/cmdline) in
*step=write*) mkdir /many; for n in $(seq 400); do echo $n >/many/$n; done
    dd if=/dev/urandom of=/large bs=1M count=40 2>/dev/null; sync; echo wrote ;;
*) rm -r /large /many /bin/one /etc/ünï; chmod 4711 /bin/busybox-cap; ln /bin/su-like /home/u/again
    sync; fstrim /; echo trimmed ;;
esac
"""


@pytest.mark.boot
@pytest.mark.parametrize("cow", [False, True], ids=["raw", "cow"])
def test_the_kernel_changes_it_and_gives_blocks_back(cow: bool, tmp_path: Path, checkers: Path) -> None:
    linux = with_built_in("BTRFS_FS", "DEVTMPFS_MOUNT")
    path = image_of(Btrfs(size="256M"), members(WORK), tmp_path / "i")
    run = tmp_path / "run"
    run.mkdir()
    disk = run / "cow" if cow else sparse_copy(path, run / "raw")
    ubd = f"ubd0={disk},{path}" if cow else f"ubd0d={disk}"
    start = sparse.used(disk) if not cow else 0
    used = []
    for step, said in (("write", "wrote"), ("trim", "trimmed")):
        assert said in boot(run, linux, ubd, "root=/dev/ubda", "rootfstype=btrfs", "rw", f"step={step}").splitlines()
        used.append(sparse.used(disk))
        if not cow:
            check(checkers, disk)
    print(f"\nused MiB: {start >> 20} -> {used[0] >> 20} -> {used[1] >> 20}")
    assert used[0] > start + (40 << 20)
    assert used[1] < start + (10 << 20)


DISK = """
mount -t btrfs -o discard,nosuid,nodev /dev/ubdb /mnt || echo "no mount"
echo "disk $(grep ' /mnt ' /proc/mounts | cut -d' ' -f3) $(df -m /mnt | tail -1 | awk '{print $2}')"
[ -e /mnt/file ] && echo "again $(wc -c </mnt/file)"
dd if=/dev/urandom of=/mnt/file bs=1M count=30 2>/dev/null; sync; [ -e /mnt/first ] && rm /mnt/file; echo x >/mnt/first
sync; umount /mnt; dmesg | grep -i -E 'btrfs.*(error|warn|corrupt|critical)' && echo "the kernel complains"
"""


@pytest.mark.boot
def test_data_disk(tmp_path: Path, checkers: Path) -> None:
    linux = with_built_in("BTRFS_FS", "DEVTMPFS_MOUNT")
    root = image_of(Btrfs(size="128M"), busybox_root(DISK), tmp_path / "i")
    kind = Disk(size="512M", filesystem="btrfs", label="data")
    spec = kind.spec(uuid=UUID.replace("7", "8", 1))  # btrfs mounts no two of one UUID
    made = build(spec, None, imagekit.tools_entry(kind.tools, kind.programs, kind.libraries), tmp_path / "d")
    disk = sparse_copy(made, tmp_path / "disk.img")
    words = (f"ubd1sd={disk}", "root=/dev/ubda", "rootfstype=btrfs", "ro")
    first = boot(tmp_path / "run", linux, f"ubd0rd={root}", *words)
    assert "disk btrfs 512" in first.splitlines() and "the kernel complains" not in first, first
    assert sparse.used(disk) > 30 << 20
    check(checkers, disk)
    second = boot(tmp_path / "run", linux, f"ubd0rd={root}", *words)
    assert f"again {30 << 20}" in second.splitlines() and "the kernel complains" not in second, second
    assert sparse.used(disk) < 10 << 20
    check(checkers, disk)
