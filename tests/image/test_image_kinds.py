"""The image kinds as data: defaults, refusals, what they contribute. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from umlbuild.kinds.images import KINDS, Disk, Image
from umlbuild.kinds.images.base import EPOCH_TEXT, ImageKind
from umlbuild.kinds.images.ext4 import Ext4
from umlbuild.kinds.images.readonly import ReadOnlyKind

UUID = "7c0f6d9e-0000-4000-8000-000000000001"
IMAGES: TypeAdapter[ImageKind] = TypeAdapter(Image)


def names() -> list[str]:
    return [kind.model_fields["kind"].default for kind in KINDS]


@pytest.mark.parametrize("name", names())
def test_contract(name: str) -> None:
    kind = IMAGES.validate_python({"kind": name})
    again = IMAGES.validate_python(kind.model_dump())
    assert kind == again
    assert kind.spec(uuid=UUID) == again.spec(uuid=UUID)
    assert kind.tools and kind.programs
    assert kind.contribute().kconfig
    assert kind.filesystem == name
    assert {command.argv[0] for command in kind.spec(uuid=UUID).commands} <= set(kind.programs)
    assert set(kind.spec(uuid=UUID).preload) == {lib for lib in kind.libraries if not lib.startswith("libarchive")}
    editor = kind.editor
    assert editor is None or (editor.editor in kind.programs and set(editor.preload) <= set(kind.libraries))
    for field in type(kind).model_fields.values():
        assert field.description or field.annotation is not None
    module = __import__(type(kind).__module__, fromlist=["x"])
    assert "Source:" in (module.__doc__ or "")
    with pytest.raises(ValidationError, match="extra_forbidden"):
        IMAGES.validate_python({"kind": name, "sise": "2G"})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "ext4", "size": "4M"}, "4M is too small for ext4; it needs 8M at least"),
        ({"kind": "ext4", "size": "2.5G"}, "is not a size"),
        ({"kind": "ext4", "label": "x" * 17}, "is too long for a label of ext4; it holds 16 bytes"),
        ({"kind": "ext4", "label": "a b"}, "cannot be a label"),
        ({"kind": "ext4", "label": "{uuid}"}, "cannot be a label"),
        ({"kind": "btrfs", "size": "64M"}, "64M is too small for btrfs; it needs 128M at least"),
        ({"kind": "btrfs", "label": "x" * 256}, "is too long for a label of btrfs; it holds 255 bytes"),
        ({"kind": "xfs", "size": "256M"}, "256M is too small for xfs; it needs 300M at least"),
        ({"kind": "xfs", "label": "x" * 13}, "it holds 12 bytes"),
        ({"kind": "erofs", "label": "x" * 16}, "it holds 15 bytes"),
        ({"kind": "erofs", "compression": "lz4", "level": 3}, "lz4 has no levels in erofs"),
        ({"kind": "erofs", "compression": "zstd", "level": 23}, "zstd has levels 1 to 22, not 23"),
        ({"kind": "squashfs", "compression": "xz", "level": 3}, "xz has no levels in squashfs"),
        ({"kind": "squashfs", "overlay": "nfs"}, "'tmpfs' or 'disk'"),
        ({"kind": "squashfs", "overlay_size": "x"}, "is not a size"),
        ({"kind": "vfat"}, "'ext4', 'btrfs', 'xfs', 'squashfs', 'erofs'"),
    ],
)
def test_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        IMAGES.validate_python(data)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"size": "4M"}, "4M is too small for ext4; it needs 8M"),
        ({"size": "64M", "filesystem": "btrfs"}, "64M is too small for btrfs; it needs 128M"),
        ({"size": "64M", "flags": "sx"}, "'x' is no flag of a disk; there are s (synchronous)"),
        ({"size": "64M", "flags": "ss"}, "has a flag twice"),
        ({"size": "64M", "mount": "srv"}, "'srv' is not a mount point (like /srv)"),
        ({"size": "64M", "mount": "/"}, "is not a mount point"),
        ({"size": "64M", "mount": "/a/../b"}, "is not a mount point"),
        ({"size": "64M", "mount": "/a b"}, "has a blank"),
        ({"size": "64M", "filesystem": "none", "mount": "/srv"}, "can have neither mount nor label"),
        ({"size": "auto"}, "is not a size"),
    ],
)
def test_disk_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Disk.model_validate(data)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("flags", "expected", "options"),
    [
        ("sd", "sd", "discard,nosuid,nodev"),
        ("s", "sd", "discard,nosuid,nodev"),
        ("", "d", "discard,nosuid,nodev"),
        ("t", "td", "defaults,nosuid,nodev"),
        ("r", "rd", "discard,ro,nosuid,nodev"),
    ],
)
def test_disk_flags(flags: str, expected: str, options: str) -> None:
    disk = Disk(size="64M", flags=flags)
    assert disk.flags == expected  # never without d: a guest could forge a COW header
    assert disk.mount_options == options
    assert Disk(size="64M").flags == "sd"


def test_read_only_kinds_bring_the_overlay() -> None:
    for kind in (IMAGES.validate_python({"kind": name}) for name in names()):
        contribution = kind.contribute()
        overlaid = isinstance(kind, ReadOnlyKind)
        assert kind.read_only == overlaid
        assert ("OVERLAY_FS" in contribution.kconfig) == overlaid
        paths = [entry.path for entry in contribution.entries]
        assert paths == (["/usr/lib/umlbuild/overlay-init"] if overlaid else [])


def test_overlay_disk_brings_its_file_system() -> None:
    kind = IMAGES.validate_python({"kind": "squashfs", "overlay": "disk", "overlay_size": "4G"})
    assert isinstance(kind, ReadOnlyKind) and kind.overlay_disk is not None
    assert kind.overlay_disk.size == "4G"
    assert "EXT4_FS" in kind.contribute().kconfig
    assert "e2fsprogs" in kind.tools and "mke2fs" in kind.programs


def test_compression_brings_its_symbol() -> None:
    kind = IMAGES.validate_python({"kind": "squashfs", "compression": "xz"})
    assert kind.contribute().kconfig["SQUASHFS_XZ"] == "y"
    kind = IMAGES.validate_python({"kind": "erofs", "compression": "zstd"})
    assert kind.contribute().kconfig["EROFS_FS_ZIP_ZSTD"] == "y"


def test_fstab_of_a_root() -> None:
    assert Ext4().mount_options == "discard,errors=remount-ro"
    assert Ext4().checked


def test_frozen_clock_is_the_epoch() -> None:
    import datetime

    from umlbuild.host.process import EPOCH

    moment = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC)
    assert moment.strftime("%Y-%m-%d %H:%M:%S") == EPOCH_TEXT
