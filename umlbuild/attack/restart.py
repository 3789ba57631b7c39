"""What a hostile machine leaves for the next start: forged disks, links in the launcher's way. Data only.

A program in UML's place prepares the state that outlives a start (the COW file, data disks, shares, its private
directory); then the launcher starts the machine again.

Source: uml-facts 4.1 (format of a COW file) and 4.4 (a forged header makes UML serve any file of the host as a disk);
what the launcher touches is in `launcher/run.sh`.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from umlbuild.attack.attempt import (
    Attempt,
    Body,
    ByCode,
    ByRestart,
    Evidence,
    Judge,
    Needs,
    Scene,
    any_of,
    changes_victim,
    reads_secret,
)
from umlbuild.attack.program import AT_FDCWD, O_RDWR, Program

_MAGIC, _SECTOR, _ALIGNMENT = b"OOOM", 512, 4096
_LOOK = (
    "for disk in /dev/ubda /dev/ubdb; do [ -b $disk ] || continue\n"
    "dd if=$disk bs=4096 count=2 2>/dev/null; read -r size </sys/block/${disk#/dev/}/size\n"
    "dd if=$disk bs=512 skip=$((size - 16)) 2>/dev/null; done; echo looked"
)
"""Where the canary's secret lies in a file that was forged to look like the machine's own."""


def cow_header(path: str, *, size: int, mtime: int, sector: int = _SECTOR, alignment: int = _ALIGNMENT) -> bytes:
    """The beginning of a COW file, version 3."""
    head = struct.pack(">4sIIQIII", _MAGIC, 3, mtime, size, sector, alignment, 0)
    return head + os.fsencode(path).ljust(4096, b"\0")


def _image(scene: Scene) -> tuple[int, int]:
    info = os.stat(scene.image)
    return info.st_size, int(info.st_mtime)


def _into(program: Program, path: str, content: bytes) -> None:
    fd = program.call("openat", AT_FDCWD, path, O_RDWR)
    program.write(content, fd)
    program.call("close", fd)


def _header(scene: Scene, content: bytes, program: Program) -> None:
    _into(program, f"{scene.home}/root.cow", content)


def _backing(scene: Scene, program: Program) -> None:
    """A host file of exactly the image's size and time, with a secret in it."""
    size, mtime = _image(scene)
    path = str(scene.canaries.forge(size, mtime, Path(scene.image)))
    _header(scene, cow_header(path, size=size, mtime=mtime), program)


def _other_image(scene: Scene, program: Program) -> None:
    size, mtime = 1 << 20, 1_000_000_000
    _header(scene, cow_header(str(scene.canaries.forge(size, mtime)), size=size, mtime=mtime), program)


def _old_version(scene: Scene, program: Program) -> None:
    """Version 2 has the path right after its number. Source: arch/um/drivers/cow_user.c."""
    size, mtime = _image(scene)
    forged = os.fsencode(scene.canaries.forge(size, mtime)).ljust(4096, b"\0")
    _header(scene, struct.pack(">4sI", _MAGIC, 2) + forged + struct.pack(">IQI", mtime, size, _SECTOR), program)


def _damaged(scene: Scene, program: Program) -> None:
    _header(scene, bytes(4128), program)


def _emptied(scene: Scene, program: Program) -> None:
    fd = program.call("openat", AT_FDCWD, f"{scene.home}/root.cow", O_RDWR)
    program.call("ftruncate", fd, 0)


def _numbers(scene: Scene, program: Program) -> None:
    """Sizes that lead the driver to other places of the file."""
    size, mtime = _image(scene)
    path = str(scene.canaries.forge(size, mtime, Path(scene.image)))
    _header(scene, cow_header(path, size=size, mtime=mtime, sector=1 << 16, alignment=1 << 30), program)


def _disk(scene: Scene, program: Program) -> None:
    """A data disk is raw; a COW header at its beginning would make it a layer over any file of the host."""
    size, mtime = 8 << 20, 1_000_000_000
    header = cow_header(str(scene.canaries.forge(size, mtime)), size=size, mtime=mtime)
    _into(program, f"{scene.home}/disk1", header)


def _links_in_share(scene: Scene, program: Program) -> None:
    victim, share = str(scene.canaries.victim), scene.writable_share
    for name in ("root.cow", "root.cow.new", "cow", "cow.new", "lock", "disk1", "notify", "memory", "log", "0", "1"):
        program.call("symlink", victim, f"{share}/link-{name}")
        program.call("symlink", victim, f"{share}/{name}")
    program.call("mknod", f"{share}/info", 0o010666, 0)


def _lock_link(scene: Scene, program: Program) -> None:
    """The launcher writes its number into the lock."""
    for lock in (f"{scene.state}.lock", f"{scene.home}/root.cow.lock"):
        program.call("unlink", lock)
        program.call("symlink", str(scene.canaries.victim), lock)


def _cow_link(scene: Scene, program: Program) -> None:
    """The launcher writes the image's path into what it takes for the COW file."""
    size, mtime = _image(scene)
    like = scene.canaries.cow_like(cow_header("untouched", size=size, mtime=mtime))
    for path in (scene.state, f"{scene.home}/root.cow"):
        program.call("unlink", path)
        program.call("symlink", str(like), path)


def _new_link(scene: Scene, program: Program) -> None:
    """Where a COW file is missing, the launcher makes one under a name beside it."""
    program.call("unlink", scene.state)
    program.call("symlink", str(scene.canaries.victim), f"{scene.state}.new")


def _rewrites_cow_like(scene: Scene, _evidence: Evidence) -> str:
    return "the launcher wrote into a host file through a link" if scene.canaries.cow_like_was_changed() else ""


def _memory_link(scene: Scene, program: Program) -> None:
    """The launcher removes, at the end, what a link of this name in the private directory names."""
    program.call("symlink", str(scene.canaries.precious()), f"{scene.home}/memory")


def _loses_precious(scene: Scene, _evidence: Evidence) -> str:
    return "the launcher removed a host directory through a link" if scene.canaries.lost_precious() else ""


def _was_not_seen(_scene: Scene, evidence: Evidence) -> str:
    return "" if b"looked" in evidence.output else "the machine did not come up again, so nobody could look"


_HARM = any_of(reads_secret, changes_victim)
_HARM_WHEN_UP = any_of(_HARM, _was_not_seen)


def _restart(
    name: str, tries: str, plant: Body, *needs: Needs, look: str = "", judge: Judge = _HARM, patience_s: float = 100
) -> Attempt:
    return ByRestart(f"restart-{name}", "restart", tries, judge, needs or ("writable root",), plant=plant,
                     script=look, patience_s=patience_s)  # fmt: skip


RESTART: tuple[Attempt, ...] = (
    _restart("backing", "name a host file as its disk's backing file", _backing, look=_LOOK,
             judge=_HARM_WHEN_UP),
    _restart("other-image", "the same with another size and time", _other_image),
    _restart("old-version", "the same in an older version of the header", _old_version),
    _restart("damaged", "zeros for the header of its COW file", _damaged),
    _restart("emptied", "an empty COW file", _emptied),
    _restart("numbers", "senseless sizes in the header", _numbers, look=_LOOK, patience_s=3),
    _restart("disk", "a COW header on its data disk, over a host file", _disk, "data disk", look=_LOOK,
             judge=_HARM_WHEN_UP),
    _restart("share-links", "links in a share with names that the launcher uses", _links_in_share, "writable share"),
    _restart("lock-link", "a link to a host file in place of the lock", _lock_link),
    _restart("new-link", "a link to a host file where a COW file is made", _new_link),
    _restart("cow-link", "a link to a host file in place of its COW file", _cow_link, judge=_rewrites_cow_like),
    ByCode("memory-link", "restart", "a link to a host directory that the launcher removes at the end",
           _loses_precious, program=_memory_link, alone=True),
)  # fmt: skip
