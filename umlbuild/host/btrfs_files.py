"""An archive's members as inodes of a btrfs: their numbers, names, attributes, and where their content goes.

Numbers follow the archive's order, directory by directory, so they are the same wherever it is read. Nothing
is unpacked. Small files stand in the tree itself, as the kernel would write them.

Source: kernel include/uapi/linux/btrfs_tree.h (btrfs_inode_item, btrfs_inode_ref, btrfs_dir_item,
btrfs_file_extent_item); fs/btrfs/inode.c: rdev is the kernel's own dev_t, a directory's size is twice the bytes
of its names.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from umlbuild.errors import StepFailed
from umlbuild.host import tarball
from umlbuild.host.btrfs_tree import (
    DIR_INDEX,
    DIR_ITEM,
    EXTENT_DATA,
    GENERATION,
    INODE_ITEM,
    INODE_REF,
    LARGEST_ITEM,
    SECTOR,
    XATTR_ITEM,
    Item,
    Key,
    name_hash,
    packed_key,
)
from umlbuild.host.tarball import Member

FIRST = 256
"""The root directory's number, in every tree of files."""

_FIRST_INDEX = 2
_INLINE = 2048
"""Source: btrfs(5), max_inline."""

_LONGEST_EXTENT = 128 << 20
_FORMATS = {
    "file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO,
}  # fmt: skip
_ENTRY_TYPES = {"file": 1, "dir": 2, "char": 3, "block": 4, "fifo": 5, "symlink": 7}
_XATTR_TYPE = 8
_INODE = struct.Struct("<5Q4I3Q32x" + "QI" * 4)
_ENTRY = struct.Struct("<17sQHHB")
_REF = struct.Struct("<QH")
_EXTENT_HEAD = struct.Struct("<QQBBHB")
_EXTENT = struct.Struct("<4Q")


@dataclass(frozen=True)
class Extent:
    """Whole sectors of a file's content on the disk."""

    offset: int
    """In the file."""
    at: int
    length: int


@dataclass
class Inode:
    """A file of any type; its hard links are names of it."""

    member: Member
    number: int = 0
    children: dict[bytes, Inode] = field(default_factory=dict)
    names: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    """Directory's number → (index there, name)."""
    extents: list[Extent] = field(default_factory=list)

    @property
    def inline(self) -> bytes | None:
        """Content that stands in the tree; None if it has sectors of its own, or there is none."""
        if self.member.kind == "symlink":
            return os.fsencode(self.member.target)
        if self.member.kind == "file" and 0 < self.member.size <= _INLINE:
            return tarball.content(self.member)
        return None

    @property
    def sectors(self) -> int:
        """Bytes of whole sectors that the content takes."""
        member = self.member
        return -(-member.size // SECTOR) * SECTOR if member.kind == "file" and member.size > _INLINE else 0


def inodes_of(members: Sequence[Member]) -> list[Inode]:
    """All inodes, the root first, each directory before what is in it.

    Raises: StepFailed for a hard link to nothing, and for a path below something that is no directory.
    """
    found = {"": Inode(Member(path="", kind="dir", mode=0o755))}
    for member in members:
        known = found.get(member.path)
        if member.kind == "dir" and known is not None and known.member.kind == "dir":
            known.member = member
            continue
        if member.kind == "link":
            if member.target not in found:
                raise StepFailed(f"btrfs: /{member.path}: a hard link to /{member.target}, which is not there")
            inode = found[member.target]
        else:
            inode = Inode(member)
        found[member.path] = inode
        _enter(found, member.path, inode)
    return list(_numbered(found[""]))


def _enter(found: dict[str, Inode], path: str, inode: Inode) -> None:
    """Put an inode into its directory, and make directories that the archive does not mention."""
    above, _, name = path.rpartition("/")
    if above not in found:
        found[above] = Inode(Member(path=above, kind="dir", mode=0o755))
        _enter(found, above, found[above])
    if found[above].member.kind != "dir":
        raise StepFailed(f"btrfs: /{path}: /{above} is no directory")
    found[above].children[os.fsencode(name)] = inode


def _numbered(root: Inode) -> Iterator[Inode]:
    root.number = FIRST
    root.names = {FIRST: [(0, b"..")]}
    last = FIRST
    open_directories = [root]
    yield root
    while open_directories:
        directory = open_directories.pop()
        for index, (name, child) in enumerate(directory.children.items(), start=_FIRST_INDEX):
            if not child.number:
                last += 1
                child.number = last
                yield child
                if child.member.kind == "dir":
                    open_directories.append(child)
            child.names.setdefault(directory.number, []).append((index, name))


def give_sectors(inodes: Sequence[Inode], take: Callable[[int], tuple[int, int]]) -> None:
    """Fill in `extents`; `take(bytes)` gives (address, bytes) of a free range, which may be shorter."""
    for inode in inodes:
        offset = 0
        while offset < inode.sectors:
            at, length = take(min(inode.sectors - offset, _LONGEST_EXTENT))
            inode.extents.append(Extent(offset, at, length))
            offset += length


def items_of(inode: Inode) -> Iterator[Item]:
    """What the tree of files holds of an inode. Raises: StepFailed for what is larger than a block."""
    for key, data in _items(inode):
        if len(data) > LARGEST_ITEM:
            raise StepFailed(
                f"btrfs: /{inode.member.path}: an attribute, or its hard links in one directory, are larger than "
                f"a block ({len(data)} bytes; {LARGEST_ITEM} are possible)", "use ext4",
            )  # fmt: skip
        yield key, data


def _items(inode: Inode) -> Iterator[Item]:
    number = inode.number
    yield (number, INODE_ITEM, 0), inode_item(inode)
    for directory, names in inode.names.items():
        refs = b"".join(_REF.pack(index, len(name)) + name for index, name in names)
        yield (number, INODE_REF, directory), refs
    xattrs: dict[int, bytes] = {}
    for name, value in sorted((os.fsencode(name), value) for name, value in inode.member.xattrs.items()):
        entry = _attribute(name, value)
        xattrs[name_hash(name)] = xattrs.get(name_hash(name), b"") + entry
    for hashed, entries in xattrs.items():
        yield (number, XATTR_ITEM, hashed), entries
    hashes: dict[int, bytes] = {}
    for index, (name, child) in enumerate(inode.children.items(), start=_FIRST_INDEX):
        entry = directory_entry((child.number, INODE_ITEM, 0), child.member.kind, name)
        hashes[name_hash(name)] = hashes.get(name_hash(name), b"") + entry
        yield (number, DIR_INDEX, index), entry
    for hashed, entries in hashes.items():
        yield (number, DIR_ITEM, hashed), entries
    content = inode.inline
    if content is not None:
        yield (number, EXTENT_DATA, 0), _EXTENT_HEAD.pack(GENERATION, len(content), 0, 0, 0, 0) + content
    for extent in inode.extents:
        head = _EXTENT_HEAD.pack(GENERATION, extent.length, 0, 0, 0, 1)
        yield (number, EXTENT_DATA, extent.offset), head + _EXTENT.pack(extent.at, extent.length, 0, extent.length)


def inode_item(inode: Inode) -> bytes:
    """Owner, mode, size, times and the rest of an inode."""
    member = inode.member
    content = inode.inline
    if member.kind == "dir":
        size = 2 * sum(map(len, inode.children))
    else:
        size = len(content) if content is not None else member.size
    allocated = len(content) if content is not None else inode.sectors
    links = 1 if member.kind == "dir" else sum(map(len, inode.names.values()))
    major, minor = member.device
    return _INODE.pack(
        GENERATION, GENERATION, size, allocated, 0,
        links, member.uid, member.gid, _FORMATS[member.kind] | member.mode,
        major << 20 | minor, 0, 0, *(member.mtime, 0) * 4,
    )  # fmt: skip


def directory_entry(location: Key, kind: str, name: bytes) -> bytes:
    """A name in a directory: what it is, and the key of the inode or tree."""
    return _ENTRY.pack(packed_key(location), GENERATION, 0, len(name), _ENTRY_TYPES[kind]) + name


def _attribute(name: bytes, value: bytes) -> bytes:
    return _ENTRY.pack(packed_key((0, 0, 0)), GENERATION, len(value), len(name), _XATTR_TYPE) + name + value
