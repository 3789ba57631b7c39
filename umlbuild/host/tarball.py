"""Tar archives as what they are: a row of byte ranges with a header each.

Reading gives an index of members (content stays in the file); writing copies untouched members as raw
ranges, neighbours in one go, so that editing one file of a 230 MB archive costs one kernel-side copy.
Never unpacks anything and needs no privilege. Read: ustar, pax and GNU long names. Written: POSIX pax,
numeric owners, no times but the ones given.

Source: pax(1) "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

from umlbuild.errors import StepFailed
from umlbuild.host import ranges
from umlbuild.host.process import EPOCH

Kind = Literal["file", "dir", "symlink", "link", "char", "block", "fifo"]

_BLOCK = 512
_RECORD = 20 * _BLOCK
_BUFFER = 1 << 16
_PIPE = 1 << 20
"""What anybody may give a pipe. Source: proc(5), /proc/sys/fs/pipe-max-size."""
_ZEROS = bytes(_BLOCK)
_TYPES: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "link", b"2": "symlink",
    b"3": "char", b"4": "block", b"5": "dir", b"6": "fifo",
}  # fmt: skip
_FLAGS: dict[Kind, bytes] = {
    "file": b"0", "link": b"1", "symlink": b"2", "char": b"3", "block": b"4", "dir": b"5", "fifo": b"6",
}  # fmt: skip
_XATTR = b"SCHILY.xattr."
_OCTAL_MAX = 0o7777777
"""What fits into the uid and gid fields."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of bytes in a file."""

    file: Path
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Member:
    """One thing in an archive."""

    path: str
    """Without leading "./" and trailing "/"; "" is the root itself. Undecodable bytes as surrogates."""
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH
    target: str = ""
    """A symlink's text, or the path of the file that a hard link shares."""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    device: tuple[int, int] = (0, 0)
    data: bytes | Span = b""
    """A file's content."""
    raw: Span | None = None
    """Headers, content and padding as they stand in the archive; None: the header must be made."""

    @property
    def size(self) -> int:
        """Bytes of content."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.end - self.data.start

    def but(self, **changes: object) -> Member:
        """A changed copy, whose header will be made anew."""
        return replace(self, raw=None, **changes)  # type: ignore[arg-type]


def order_of(path: str) -> bytes:
    """The key of GNU tar's `--sort=name`: a directory, then all below it, names by their bytes.

    No name has a zero byte, so as the end of each it comes before all that a longer name could have there.
    """
    return os.fsencode(path).replace(b"/", b"\0")


def read(archive: Path) -> list[Member]:
    """The members of an archive in their order. Raises: StepFailed if it is no (whole) tar archive."""
    if archive.stat().st_size == 0:
        return []
    with archive.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            return list(_parse(view, archive))
        except ValueError as error:
            raise StepFailed(f"{archive.name}: no tar archive, or a damaged one ({error})") from error


def content(member: Member) -> bytes:
    """A file's content."""
    if isinstance(member.data, bytes):
        return member.data
    with member.data.file.open("rb") as file:
        file.seek(member.data.start)
        return file.read(member.size)


def unpack(member: Member, out: Path) -> None:
    """Write a file's content to `out`, however large it is."""
    with out.open("xb") as file:
        if isinstance(member.data, bytes):
            file.write(member.data)
            return
        start = member.data.start
        with member.data.file.open("rb") as source:
            ranges.copy(source.fileno(), file.fileno(), start, start + member.size)


def write(members: Iterable[Member], out: Path) -> None:
    """Write an archive of `members` in the order given; a hard link must come after its target."""
    with out.open("wb") as file:
        _write(members, file.fileno())


@contextlib.contextmanager
def piped(members: Iterable[Member]) -> Iterator[Path]:
    """An archive, as `write` makes it, that can be opened and read once, while it is made.

    Raises: at the end, what the writing raised. That its reader ends early is the reader's matter.
    """
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE)
    failures: list[Exception] = []

    def work() -> None:
        try:
            with contextlib.suppress(BrokenPipeError):
                _write(members, writer)
        except Exception as error:
            failures.append(error)
        finally:
            os.close(writer)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)
        thread.join()
        if failures:
            raise failures[0]


def _write(members: Iterable[Member], out: int) -> None:
    with ExitStack() as stack:
        sources: dict[Path, IO[bytes]] = {}
        small = bytearray()
        range_: Span | None = None
        count = 0

        def flush() -> None:
            nonlocal range_
            view = memoryview(bytes(small))
            small.clear()
            while view:
                view = view[os.write(out, view) :]
            if range_ is not None:
                if range_.file not in sources:
                    sources[range_.file] = stack.enter_context(range_.file.open("rb"))
                ranges.copy(sources[range_.file].fileno(), out, range_.start, range_.end)
                range_ = None

        def put(piece: bytes | Span) -> None:
            nonlocal range_, count
            count += len(piece) if isinstance(piece, bytes) else piece.end - piece.start
            if isinstance(piece, bytes):
                if range_ is not None or len(small) > _BUFFER:
                    flush()
                small.extend(piece)
            elif range_ is not None and range_.file == piece.file and range_.end == piece.start:
                range_ = Span(piece.file, range_.start, piece.end)
            elif piece.end > piece.start:
                if range_ is not None:
                    flush()
                range_ = piece

        for member in members:
            if member.raw is not None:
                put(member.raw)
                continue
            put(header(member))
            if member.kind == "file":
                put(member.data)
                put(bytes(-member.size % _BLOCK))
        put(bytes(2 * _BLOCK + -(count + 2 * _BLOCK) % _RECORD))
        flush()


def header(member: Member) -> bytes:
    """The header block of a member, with a pax header before it where ustar's fields are too small."""
    name = os.fsencode(f"./{member.path}{'/' if member.kind == 'dir' and member.path else ''}")
    link = os.fsencode(f"./{member.target}" if member.kind == "link" else member.target)
    records: dict[bytes, bytes] = {}
    prefix, short = _split(name)
    if not short or (not name.isascii() and _is_utf8(name)):
        records[b"path"] = name
        prefix, short = b"", short or name[:100]
    if len(link) > 100 or (not link.isascii() and _is_utf8(link)):
        records[b"linkpath"] = link
    size = member.size if member.kind == "file" else 0
    numbers = {b"uid": member.uid, b"gid": member.gid, b"size": size, b"mtime": member.mtime}
    for key, value in numbers.items():
        if not 0 <= value <= (_OCTAL_MAX if key in (b"uid", b"gid") else 0o77777777777):
            records[key] = str(value).encode()
            numbers[key] = 0
    records.update({_XATTR + os.fsencode(key): value for key, value in sorted(member.xattrs.items())})
    return _pax(name, records) + _ustar(
        short, _FLAGS[member.kind], numbers,
        prefix=prefix, link=link[:100], mode=member.mode, device=member.device,
    )  # fmt: skip


def sparse_header(path: str, *, mode: int, mtime: int, stored: int, size: int) -> bytes:
    """The headers of a file in GNU's sparse format 1.0; its map and data, `stored` bytes, follow.

    Source: GNU tar manual, "PAX Format, Version 1.0".
    """
    name = os.fsencode(f"./{path}")
    parent, _, last = name.rpartition(b"/")
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": str(size).encode(),
    }
    numbers = {b"uid": 0, b"gid": 0, b"size": stored, b"mtime": mtime}
    if stored > 0o77777777777:
        records[b"size"] = str(stored).encode()
        numbers[b"size"] = 0
    return _pax(name, records) + _ustar((parent + b"/GNUSparseFile.0/" + last)[:100], b"0", numbers, mode=mode)


def _pax(name: bytes, records: Mapping[bytes, bytes]) -> bytes:
    if not records:
        return b""
    body = b"".join(_record(key, value) for key, value in records.items())
    parent, _, last = name.rstrip(b"/").rpartition(b"/")
    short = (parent + b"/PaxHeaders/" + last)[:100]
    numbers = {b"uid": 0, b"gid": 0, b"size": len(body), b"mtime": EPOCH}
    return _ustar(short, b"x", numbers) + body + bytes(-len(body) % _BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH key=value\\n`, where LENGTH counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _ustar(
    name: bytes, flag: bytes, numbers: Mapping[bytes, int], *,
    prefix: bytes = b"", link: bytes = b"", mode: int = 0o644, device: tuple[int, int] | None = None,
) -> bytes:  # fmt: skip
    block = bytearray(_BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"%07o\0" % (mode & 0o7777)
    block[108:116] = b"%07o\0" % numbers[b"uid"]
    block[116:124] = b"%07o\0" % numbers[b"gid"]
    block[124:136] = b"%011o\0" % numbers[b"size"]
    block[136:148] = b"%011o\0" % numbers[b"mtime"]
    block[148:156] = b" " * 8
    block[156:157] = flag
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    if device is not None:  # GNU tar leaves the fields out of a pax header's own header
        block[329:345] = b"%07o\0%07o\0" % device
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """The (prefix, name) fields; (b"", b"") if the name fits in no way."""
    if len(name) <= 100:
        return b"", name
    for at in range(min(len(name) - 2, 155), 0, -1):
        if name[at : at + 1] == b"/" and len(name) - at - 1 <= 100:
            return name[:at], name[at + 1 :]
    return b"", b""


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parse(view: mmap.mmap, archive: Path) -> Iterator[Member]:
    start = at = 0
    shared: dict[bytes, bytes] = {}  # of a global header
    own: dict[bytes, bytes] = {}
    while (block := view[at : at + _BLOCK]) != _ZEROS:
        if not block:
            raise StepFailed(f"{archive.name}: the archive is cut off, it has no end")
        if len(block) < _BLOCK or not _is_header(block):
            raise StepFailed(f"{archive.name}: no tar archive, or a damaged one (at byte {at})")
        flag = block[156:157]
        size = _number(block[124:136])
        if flag in b"xgLK":
            body = view[at + _BLOCK : at + _BLOCK + size]
            if flag == b"L":
                own[b"path"] = body.rstrip(b"\0")
            elif flag == b"K":
                own[b"linkpath"] = body.rstrip(b"\0")
            else:
                (own if flag == b"x" else shared).update(_records(body))
            at += _BLOCK + _padded(size)
            if flag == b"g":  # its content is given to each member, so it is not copied
                start = at
            continue
        pax = {**shared, **own}
        if b"size" in pax:
            size = int(pax[b"size"])
        kind = _TYPES.get(flag)
        if kind is None or any(key.startswith(b"GNU.sparse") for key in pax):
            raise StepFailed(f"{archive.name}: a member of type {flag!r} (sparse?) at byte {at} is not supported")
        if kind != "file":
            size = 0
        data = at + _BLOCK
        end = data + _padded(size)
        if end > len(view):
            raise StepFailed(f"{archive.name}: the archive is cut off at byte {len(view)}")
        yield _member(block, pax, kind, Span(archive, data, data + size), None if shared else Span(archive, start, end))
        start = at = end
        own = {}


def _is_header(block: bytes) -> bool:
    """Whether a block's check sum is right: that of its bytes, with blanks in the place of the sum itself.

    Adler-32's lower half is 1 and the sum of the bytes modulo 65521, forty times as fast as `sum`.
    """
    expected = _number(block[148:156]) - 8 * 32 + sum(block[148:156])
    return zlib.adler32(block) & 0xFFFF == (1 + expected) % 65521


def _member(block: bytes, pax: Mapping[bytes, bytes], kind: Kind, data: Span, raw: Span | None) -> Member:
    name = pax.get(b"path")
    if name is None:
        name = _text(block[0:100])
        prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
        if prefix:
            name = prefix + b"/" + name
    link = pax.get(b"linkpath", _text(block[157:257]))
    return Member(
        path=_path(name),
        kind=kind,
        mode=_number(block[100:108]) & 0o7777,
        uid=int(pax[b"uid"]) if b"uid" in pax else _number(block[108:116]),
        gid=int(pax[b"gid"]) if b"gid" in pax else _number(block[116:124]),
        mtime=int(float(pax[b"mtime"])) if b"mtime" in pax else _number(block[136:148]),
        target=_path(link) if kind == "link" else os.fsdecode(link) if kind == "symlink" else "",
        xattrs={os.fsdecode(k[len(_XATTR) :]): v for k, v in pax.items() if k.startswith(_XATTR)},
        device=(_number(block[329:337]), _number(block[337:345])) if kind in ("char", "block") else (0, 0),
        data=data if kind == "file" else b"",
        raw=raw,
    )


def _records(body: bytes) -> dict[bytes, bytes]:
    found = {}
    at = 0
    while at < len(body) and body[at : at + 1] != b"\0":
        space = body.index(b" ", at)
        end = at + int(body[at:space])
        key, _, value = body[space + 1 : end - 1].partition(b"=")
        found[key] = value
        at = end
    return found


@lru_cache(maxsize=1 << 12)  # modes, owners and times are few
def _number(raw: bytes) -> int:
    if raw[:-1].isdigit() and raw[-1] == 0:  # nearly all
        return int(raw[:-1], 8)
    if raw[0] & 0x80:  # GNU's base 256
        return int.from_bytes(bytes([raw[0] & 0x7F]) + raw[1:], "big")
    text = raw.split(b"\0", 1)[0].strip()
    return int(text, 8) if text else 0


def _text(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


def _path(name: bytes) -> str:
    if name[:2] == b"./":
        name = name[2:]
    if name[-1:] == b"/":
        name = name[:-1]
    if b"//" in name or b"." in (name[:1], name[-1:]) or b"/./" in name or name[:1] == b"/":
        name = b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))
    return os.fsdecode(name)


def _padded(size: int) -> int:
    return size + -size % _BLOCK
