"""`kind = "ext4"`: the default. Read-write, with a journal; deleted files give their blocks back to the host.

    [image]
    kind = "ext4"
    size = "2G"

Made straight from the tar by mke2fs >= 1.47.1, with every feature named, so that no mke2fs.conf and no
newer default changes a byte. Inode tables and journal are written out (as holes), not left to the
guest's lazy initialisation, which would fill the COW file with zeros.

mke2fs takes only security.capability from a tar's extended attributes; debugfs sets the rest (POSIX ACLs,
user.*). Source: mke2fs(8), debugfs(8), ext4(5); e2fsprogs misc/create_inode_libarchive.c; the journal's
least size is 1024 blocks (lib/ext2fs/mkjournal.c).
"""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.images.base import Format, WritableKind, at_least, label_of
from umlbuild.specs.image import Command, EditedImageSpec, ImageSpec, Need

LEAST = 8 << 20
TOOLS = ("e2fsprogs", "libeatmydata1")
LIBRARIES = ("libeatmydata.so",)
"""Without it mke2fs and debugfs wait for the disk at their end. What must be on it, `host.publish` waits for.
Source: libeatmydata's README (fsync and its kin do nothing)."""
_CONFIG = "[defaults]\n\tbase_features = none\n[fs_types]\n" + "".join(
    f"\t{name} = {{\n\t\tfeatures = none\n\t}}\n" for name in ("ext4", "floppy", "small", "big", "huge")
)
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)


def journal_mib(size: int | None) -> int:
    """Journal of a file system; small ones get little, so that wrapping it does not fill a COW file."""
    if size is not None and size < 64 << 20:
        return 4
    return 8 if size is None or size < 1 << 30 else 16


def format_of(label: str, size: int | None, *, populated: bool) -> Format:
    """How an ext4 is written, from the tar or empty."""
    journal = journal_mib(size)
    source = ("-d", "-") if populated else ()
    make = (
        "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-N", "{inodes}", "-m", "1",
        "-J", f"size={journal}", "-O", _FEATURES, "-L", label, "-U", "{uuid}",
        "-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,hash_seed={uuid}", *source, "{image}",
    )  # fmt: skip
    mend = Command(argv=("debugfs", "-w", "-f", "{fixups}", "{image}"), silent=True)
    return Format(
        name="ext4",
        commands=(Command(argv=make, stdin="tar"), mend) if populated else (Command(argv=make),),
        populate="tar" if populated else "empty",
        need=Need(fixed=(journal + 2) << 20, inode=256 + 64, per_mille=40, least=4 * journal << 20),
        fixups="debugfs" if populated else None,
        files=(("mke2fs.conf", _CONFIG),),
        environment=(("MKE2FS_CONFIG", "{work}/mke2fs.conf"),),
        preload=LIBRARIES,
    )


class Ext4(WritableKind):
    """An ext4 file system."""

    kind: Literal["ext4"] = "ext4"
    label: str = "root"
    """Volume label, 16 bytes at most."""

    @field_validator("size")
    @classmethod
    def _size(cls, size: str) -> str:
        return at_least(size, LEAST, "ext4")

    @field_validator("label")
    @classmethod
    def _label(cls, label: str) -> str:
        return label_of(label, 16, "ext4")

    @property
    def filesystem(self) -> str:
        return "ext4"

    @property
    def mount_options(self) -> str:
        return "discard,errors=remount-ro"

    @property
    def checked(self) -> bool:
        return True

    @property
    def tools(self) -> tuple[str, ...]:
        return (*TOOLS, "libarchive13t64")

    @property
    def programs(self) -> tuple[str, ...]:
        return ("debugfs", "mke2fs")

    @property
    def libraries(self) -> tuple[str, ...]:
        return (*LIBRARIES, "libarchive.so.13")

    @property
    def editor(self) -> EditedImageSpec:
        return EditedImageSpec(editor="debugfs", preload=LIBRARIES)

    def contribute(self) -> Contribution:
        return Contribution(kconfig=symbols.EXT4, optional_kconfig=symbols.EXT4_OPTIONAL)

    def spec(self, *, uuid: str) -> ImageSpec:
        return self.sized(format_of(self.label, self.fixed_size, populated=True), uuid)
