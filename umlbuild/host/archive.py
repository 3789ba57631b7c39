"""The archive of a release: one bundle as `.tar.zst`, the same bytes whoever packs it, its images sparse.

POSIX pax in GNU's sparse format 1.0, which GNU tar 1.15.91 and newer and libarchive read; whole pages of zeros are
holes, whatever the file system of the packer says. Sorted, owner 0, mode of the file; images keep their mtime (UML
and the launcher know an image by it), everything else has the fixed epoch.

Source: GNU tar manual, "PAX Format, Version 1.0"; zstd(1): measured with 1.5.4, `-T1`, `-T2` and `-T4` give equal
bytes, `--single-thread` others; a bundle of 307 MB: level 3 93.0 MB in 1.2 s, 12 80.7 MB in 6.0 s, 15 80.0 MB in 21 s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from umlbuild.errors import StepFailed
from umlbuild.host import process, sparse, tarball
from umlbuild.host.process import EPOCH
from umlbuild.host.tarball import Member, Span

LEVEL = 12
_TIMEOUT_S = 3600.0
_RECORD = 10240


def pack(bundle: Path, top: str, out: Path, work: Path) -> None:
    """Write the archive `out` of a bundle, all below the directory `top`. `work` is scratch."""
    tar = work / "bundle.tar"
    write_tar(bundle, top, tar)
    # The number of threads does not change the bytes, but zero (`--single-thread`) would.
    threads = len(os.sched_getaffinity(0))
    argv = ["zstd", "--quiet", f"-{LEVEL}", f"-T{threads}", "--check", "-o", str(out), str(tar)]
    process.run(argv, log=work / "log", timeout_s=_TIMEOUT_S)
    tar.unlink()
    out.chmod(0o644)


def unpack(archive: Path, into: Path, work: Path) -> None:
    """Unpack an archive as anybody would, with GNU tar. Raises: ToolFailed (damaged, cut off)."""
    argv = ["tar", "--extract", "--use-compress-program=zstd", "--same-permissions", "--no-same-owner"]
    process.run([*argv, f"--directory={into}", f"--file={archive}"], log=work / "log", timeout_s=_TIMEOUT_S)


def write_tar(bundle: Path, top: str, out: Path) -> None:
    """Write the uncompressed archive. Raises: StepFailed for what a bundle never holds (links, devices)."""
    with ExitStack() as stack, out.open("wb") as file:
        file.write(tarball.header(Member(path=top, kind="dir", mode=0o755)))
        for path in sorted(bundle.rglob("*"), key=lambda path: tarball.order_of(str(path.relative_to(bundle)))):
            name = f"{top}/{path.relative_to(bundle)}"
            if path.name.startswith(".manifest"):  # of the store
                continue
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise StepFailed(f"packing {path}: is neither a file nor a directory")
            mode = path.stat().st_mode & 0o7777
            if path.is_dir():
                file.write(tarball.header(Member(path=name, kind="dir", mode=mode)))
            elif path.suffix == ".img" and path.parent == bundle:
                _put_sparse(name, mode, stack.enter_context(path.open("rb")), file)
            else:
                span = Span(path, 0, path.stat().st_size)
                file.write(tarball.header(Member(path=name, kind="file", mode=mode, mtime=EPOCH, data=span)))
                with path.open("rb") as source:
                    _copy(source, file, 0, span.end)
                file.write(bytes(-span.end % 512))
        file.write(bytes(1024 + -(file.tell() + 1024) % _RECORD))


def _put_sparse(name: str, mode: int, source: IO[bytes], file: IO[bytes]) -> None:
    info = os.fstat(source.fileno())
    extents = [*_full_ranges(source.fileno(), info.st_size), (info.st_size, info.st_size)]
    numbers = [len(extents), *(n for start, end in extents for n in (start, end - start))]
    text = "".join(f"{number}\n" for number in numbers).encode()
    text += bytes(-len(text) % 512)
    size = len(text) + sum(end - start for start, end in extents)
    file.write(tarball.sparse_header(name, mode=mode, mtime=int(info.st_mtime), stored=size, size=info.st_size))
    file.write(text)
    for start, end in extents:
        _copy(source, file, start, end)
    file.write(bytes(-size % 512))


def _full_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges between the pages of zeros."""
    at = 0
    for start, end in sparse.empty_ranges(fd, size):
        if start > at:
            yield at, start
        at = end
    if at < size:
        yield at, size


def _copy(source: IO[bytes], target: IO[bytes], start: int, end: int) -> None:
    source.seek(start)
    while start < end:
        block = source.read(min(1 << 20, end - start))
        if not block:
            raise StepFailed(f"packing {source.name}: it became shorter meanwhile")
        target.write(block)
        start += len(block)
