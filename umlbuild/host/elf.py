"""What a program asks of the host that starts it: its interpreter and shared libraries, read from the file.

Nothing is run: ldd would start the loader, which fails for a program that is newer than the host.

Source: elf(5), for 64-bit little-endian files; ld.so(8).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from umlbuild.errors import StepFailed

_HEADER = struct.Struct("<16sHHIQQQIHHH")
"""Elf64_Ehdr up to e_phnum."""
_SEGMENT = struct.Struct("<IIQQQQQQ")
"""Elf64_Phdr: type, flags, offset, vaddr, paddr, filesz, memsz, align."""
_ENTRY = struct.Struct("<qQ")
"""Elf64_Dyn."""
_MAGIC = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_GNU_STACK = 1, 2, 3, 0x6474E551
_READ_WRITE = 6
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


@dataclass(frozen=True)
class Linkage:
    """How a program or library is linked."""

    interpreter: str | None
    """Absolute path of the loader that the host's kernel starts it with; None: static, or a library."""
    needed: tuple[str, ...]
    """Names of the shared libraries that it asks for directly, in its own order."""


def linkage_of(path: Path) -> Linkage:
    """The linkage of an ELF file. Raises: StepFailed if it is none."""
    data = path.read_bytes()
    try:
        return _linkage(data)
    except (struct.error, ValueError, IndexError) as error:
        raise StepFailed(f"{path.name}: is no ELF program of this architecture") from error


def _linkage(data: bytes) -> Linkage:
    if not data.startswith(_MAGIC):
        raise ValueError("no 64-bit little-endian ELF file")
    header = _HEADER.unpack_from(data)
    at, size, count = header[5], header[9], header[10]
    segments = [_SEGMENT.unpack_from(data, at + number * size) for number in range(count)]
    interpreter = None
    needed: tuple[str, ...] = ()
    for kind, _, offset, _, _, length, _, _ in segments:
        if kind == _PT_INTERP:
            interpreter = data[offset : offset + length].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            rows = [_ENTRY.unpack_from(data, at) for at in range(offset, offset + length, _ENTRY.size)]
            rows = rows[: [tag for tag, _ in rows].index(_DT_NULL)]
            strings = next((_offset_of(value, segments) for tag, value in rows if tag == _DT_STRTAB), 0)
            needed = tuple(_text(data, strings + value) for tag, value in rows if tag == _DT_NEEDED)
    return Linkage(interpreter, needed)


def with_plain_stack(data: bytes) -> bytes:
    """A program or library that asks for no executable stack; one that says nothing does (tcc leaves it so).

    The table of segments is written anew, at the end of the file: where it was there is no room.
    """
    header = list(_HEADER.unpack_from(data))
    at, size, count = header[5], header[9], header[10]
    table = data[at : at + count * size]
    if any(_SEGMENT.unpack_from(table, number * size)[0] == _PT_GNU_STACK for number in range(count)):
        return data
    padding = bytes(-len(data) % 16)
    header[5], header[10] = len(data) + len(padding), count + 1
    stack = _SEGMENT.pack(_PT_GNU_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)
    return _HEADER.pack(*header) + data[_HEADER.size :] + padding + table + stack


def _offset_of(address: int, segments: list[tuple[int, ...]]) -> int:
    """Where in the file that is which is loaded at an address."""
    for kind, _, offset, start, _, length, _, _ in segments:
        if kind == _PT_LOAD and start <= address < start + length:
            return offset + address - start
    raise ValueError(f"nothing is loaded at {address:#x}")


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
