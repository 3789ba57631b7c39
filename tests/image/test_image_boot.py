"""Images of every kind as the root of a real machine; TRIM gives blocks back to the host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import imagekit
import pytest
from bootkit import BootFailed, boot, busybox_root, package, sparse_copy, with_built_in
from imagekit import UUID, build, root_entry

from umlbuild.host import sparse
from umlbuild.host.tarball import Member
from umlbuild.kinds.images import Disk
from umlbuild.kinds.images.base import ImageKind
from umlbuild.kinds.images.btrfs import Btrfs
from umlbuild.kinds.images.erofs import Erofs
from umlbuild.kinds.images.ext4 import Ext4
from umlbuild.kinds.images.squashfs import Squashfs
from umlbuild.kinds.images.xfs import Xfs

pytestmark = [pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800)]

FACTS = """
echo "root is $(grep ' / ' /proc/mounts | tail -1 | cut -d' ' -f1-3)"
for path in / /etc/shadow /bin/su-like /tmp /home/u "/etc/with space" /etc/ünï; do
    echo "fact $(stat -c '%n %a %u:%g' "$path")"
done
echo "links $(stat -c %h /bin/one)"
echo "capability $(su nobody -c '/bin/busybox-cap grep CapEff /proc/self/status' | tr -d '\\t')"
echo "mounts of the image: $(grep -c ' /mnt' /proc/mounts)"
echo written >/etc/written && echo "can write: $(cat /etc/written)"
[ -c /dev/null ] && echo "dev is there"
echo "pid $$"
"""
FOUND = [
    "fact / 755 0:0",
    "fact /etc/shadow 640 0:42",
    "fact /bin/su-like 4755 0:0",
    "fact /tmp 1777 0:0",
    "fact /home/u 2770 100000:70000",
    "fact /etc/with space 644 0:0",
    "fact /etc/ünï 644 0:0",
    "links 2",
    "capability CapEff:0000000000002000",
    "mounts of the image: 0",
    "can write: written",
    "dev is there",
    "pid 1",
]


def members(init: str) -> list[Member]:
    busybox = (package("busybox-static") / "bin/busybox").read_bytes()
    root = busybox_root(init, [
        Member("bin/busybox-cap", "file", 0o755, data=busybox,
               xattrs={"security.capability": imagekit.CAPABILITY}),
        Member("bin/one", "file", 0o644, data=b"one"),
        Member("bin/two", "link", 0o644, target="bin/one"),
        Member("bin/su-like", "file", 0o4755, data=b"x"),
        Member("etc/shadow", "file", 0o640, gid=42, data=b"x"),
        Member("etc/with space", "file", 0o644, data=b"x"),
        Member("etc/ünï", "file", 0o644, data=b"x"),
        Member("home/u", "dir", 0o2770, uid=100_000, gid=70_000),
    ])  # fmt: skip
    return [member.but(mode=0o1777) if member.path == "tmp" else member for member in root]


def without_busybox(root: Sequence[Member]) -> list[Member]:
    """The same root with links to its programs, but no program called busybox, like a Debian one."""
    renamed = {"busybox": "busybox-itself", "bin/busybox": "bin/busybox-itself"}
    return [
        member.but(path=renamed.get(member.path, member.path), target=renamed.get(member.target, member.target))
        for member in root
    ]


def image_of(kind: ImageKind | Disk, root: Sequence[Member] | None, where: Path) -> Path:
    tools = imagekit.tools_entry(kind.tools, kind.programs, kind.libraries)
    entry = root_entry(where / "root", root) if root is not None else None
    return build(kind.spec(uuid=UUID), entry, tools, where)


@pytest.mark.parametrize(
    ("kind", "symbol"),
    [(Ext4(size="64M"), "EXT4_FS"), (Btrfs(size="128M"), "BTRFS_FS"), (Xfs(size="300M"), "XFS_FS")],
    ids=["ext4", "btrfs", "xfs"],
)
def test_writable_root(kind: ImageKind, symbol: str, tmp_path: Path) -> None:
    linux = with_built_in(symbol, "DEVTMPFS_MOUNT")
    image = image_of(kind, members(FACTS), tmp_path / "i")
    before = image.read_bytes()
    cow = tmp_path / "run" / "cow"
    words = (f"ubd0={cow},{image}", "root=/dev/ubda", f"rootfstype={kind.filesystem}", "rw")
    console = boot(tmp_path / "run", linux, *words)
    lines = console.splitlines()
    assert [line for line in FOUND if line not in lines] == [], console
    assert re.search(rf"^root is /dev/root / {kind.filesystem}", console, re.MULTILINE)
    assert image.read_bytes() == before
    # no lazy initialisation: a first boot writes little
    assert sparse.used(cow) < 6 << 20


@pytest.mark.parametrize(
    ("kind", "symbol"),
    [
        (Squashfs(), "SQUASHFS"),
        (Squashfs(overlay="disk", overlay_size="64M"), "SQUASHFS"),
        (Erofs(), "EROFS_FS"),
        (Erofs(overlay="disk", overlay_size="64M"), "EROFS_FS_ZIP"),
    ],
    ids=["squashfs", "squashfs-disk", "erofs", "erofs-disk"],
)
def test_overlay_root(kind: Squashfs | Erofs, symbol: str, tmp_path: Path) -> None:
    linux = with_built_in(symbol, "OVERLAY_FS", "DEVTMPFS_MOUNT")
    root = members(FACTS + "[ -e /etc/count ] && echo again; echo x >>/etc/count")
    image = image_of(kind, without_busybox(root) if kind.kind == "erofs" else root, tmp_path / "i")
    words = [f"ubd0rd={image}", "root=/dev/ubda", f"rootfstype={kind.filesystem}", "ro",
             "init=/usr/lib/umlbuild/overlay-init"]  # fmt: skip
    if kind.overlay_disk is not None:
        disk = sparse_copy(image_of(kind.overlay_disk, None, tmp_path / "d"), tmp_path / "overlay.img")
        words += [f"ubd1d={disk}", "umlbuild.overlay=/dev/ubdb"]
    for start in ("first", "second"):
        console = boot(tmp_path / "run", linux, *words)
        assert [line for line in FOUND if line not in console.splitlines()] == [], console
        assert "root is umlbuild / overlay" in console
        assert ("again" in console.splitlines()) == (start == "second" and kind.overlay == "disk")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["umlbuild.init=/no/such"], "umlbuild: overlay root: /no/such: no such init"),
        (["umlbuild.overlay=/dev/ubdz"], "umlbuild: overlay root: /dev/ubdz: no such disk"),
        (["umlbuild.overlay=nfs"], "umlbuild: overlay root: umlbuild.overlay=nfs: must be tmpfs or a disk"),
    ],
)
def test_overlay_says_what_is_wrong(words: list[str], said: str, tmp_path: Path) -> None:
    linux = with_built_in("SQUASHFS", "OVERLAY_FS", "DEVTMPFS_MOUNT")
    image = image_of(Squashfs(), members("true"), tmp_path / "i")
    with pytest.raises(BootFailed) as raised:
        boot(
            tmp_path / "run", linux, f"ubd0rd={image}", "root=/dev/ubda", "ro",
            "init=/usr/lib/umlbuild/overlay-init", *words,
        )  # fmt: skip
    assert said in raised.value.console


def test_overlay_starts_another_init_with_its_arguments(tmp_path: Path) -> None:
    linux = with_built_in("SQUASHFS", "OVERLAY_FS", "DEVTMPFS_MOUNT")
    root = members("true")
    other = next(member for member in root if member.path == "sbin/init")
    script = b'#!/bin/sh\necho "other init with $*"\npoweroff -f\n'
    root = [member for member in root if member is not other] + [other.but(data=script, path="sbin/other")]
    image = image_of(Squashfs(), root, tmp_path / "i")
    console = boot(
        tmp_path / "run", linux, f"ubd0rd={image}", "root=/dev/ubda", "console=tty0", "ro",
        "init=/usr/lib/umlbuild/overlay-init", "umlbuild.init=/sbin/other", "--", "a", "b",
    )  # fmt: skip
    assert "other init with a b" in console.splitlines()


WRITE = "dd if=/dev/urandom of=/large bs=1M count=40 2>/dev/null; sync; echo wrote"
# From 7.x on the mount option discards in the background, and what it is about to discard fstrim leaves to it.
TRIM = "rm /large; sync; sleep 2; fstrim -v /; echo trimmed"


@pytest.mark.parametrize("cow", [False, True], ids=["raw", "cow"])
def test_deleting_gives_blocks_back(cow: bool, tmp_path: Path) -> None:
    linux = with_built_in("EXT4_FS", "DEVTMPFS_MOUNT")
    init = f"""
    mount -o remount,rw,discard /
    case $(cat /proc/cmdline) in *step=write*) {WRITE} ;; *) {TRIM} ;; esac
    """
    image = image_of(Ext4(size="128M"), busybox_root(init), tmp_path / "i")
    run = tmp_path / "run"
    run.mkdir()
    if cow:
        disk, ubd = run / "cow", f"ubd0={run / 'cow'},{image}"
    else:
        disk = sparse_copy(image, run / "raw")
        ubd = f"ubd0d={disk}"
    start = sparse.used(disk) if disk.exists() else 0
    assert "wrote" in boot(run, linux, ubd, "root=/dev/ubda", "rw", "step=write")
    full = sparse.used(disk)
    assert full > start + (40 << 20)
    assert "trimmed" in boot(run, linux, ubd, "root=/dev/ubda", "rw", "step=trim")
    after = sparse.used(disk)
    print(f"\nused MiB: {start >> 20} -> {full >> 20} -> {after >> 20}")
    assert after < start + (10 << 20)
