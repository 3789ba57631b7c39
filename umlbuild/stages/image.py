"""Image: write a file system from a tar (or empty) with the programs of the tools entry, or by itself (btrfs).

No root, mount, loop device or namespace: the tar is read, or a prototype made of it, and owners, modes and
attributes come from there. The result is sparse, read-only, and the same whoever makes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from umlbuild.errors import StepFailed, ToolFailed, UserError
from umlbuild.host import btrfs, content, debugfs, ground, protofile, seal, sparse, tarball, tooltree
from umlbuild.host.btrfs_layout import NoRoom
from umlbuild.host.process import EPOCH
from umlbuild.host.tarball import Member
from umlbuild.kinds.size import about
from umlbuild.specs.image import Command, ImageSpec
from umlbuild.stages.context import Context

_TIMEOUT_S = 3600
_MIB = 1 << 20
_BYTES_PER_INODE = 16384

class ImageTooSmall(UserError):
    """The size in the recipe holds less than the root file system."""

    def __init__(self, size: int, members: Sequence[Member], enough: int) -> None:
        self.size = size
        self.enough = enough
        self.largest = content.largest(members)
        message = (
            f"image.size = {about(size)} is smaller than its content "
            f"(about {about(content.size_of(members))}): use at least {about(enough)}"
        )
        rows = [f"  {about(count):>6}  {path}" for path, count in self.largest if count]
        super().__init__(
            "\n".join([message, "what takes most:", *rows]),
            f'image.size = "{about(enough)}", or leave packages and files out',
        )


def run(spec: ImageSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write `out/root.img`. Raises: ImageTooSmall, ToolFailed, StepFailed."""
    image = out / seal.IMAGE
    tar = inputs["root"] / ground.ROOT_TAR if spec.populate != "empty" else None
    is_ground = bool(spec.remove or "modules" in inputs)
    if tar is None:
        members = []
    elif is_ground:
        members = list(ground.of(inputs["root"], spec.remove, inputs.get("modules"), context.note).settled())
    else:
        members = tarball.read(tar)
    size = _size(spec, members)
    if size is not None:
        with image.open("xb") as file:
            os.truncate(file.fileno(), size)
    words = {
        "image": str(image),
        "tar": str(tar),
        "uuid": spec.uuid,
        "epoch": str(EPOCH),
        "inodes": str(_inodes(size or 0, content.inodes_of(members) + spec.inodes)),
        "work": str(context.work),
    }
    for name, text in spec.files:
        (context.work / name).write_text(text)
    cwd, fixups = _prepare(spec, members, words, context)
    environment = {name: _filled(value, words) for name, value in spec.environment}
    try:
        if spec.writer == "btrfs":
            context.note("writing")
            btrfs.write(image, members, uuid=spec.uuid, label=spec.label or "")
        for command in spec.commands:
            if command.wants_fixups and fixups is None:
                continue
            start = tooltree.tool_argv(inputs["tools"], command.argv[0], preload=spec.preload)
            argv = [*start, *(_filled(word, words) for word in command.argv[1:])]
            given = nullcontext({"nothing": None, "tar": tar, "fixups": fixups}[command.stdin])
            with tarball.piped(members) if is_ground and command.stdin == "tar" else given as stdin:
                _run(command, argv, context, cwd=cwd, env=environment, stdin=stdin)
    except (ToolFailed, NoRoom) as error:
        if size is not None and members and size < (enough := _enough(spec, members)):
            raise ImageTooSmall(size, members, enough) from error
        raise
    sparse.dig(image)
    seal.seal(image)


def _size(spec: ImageSpec, members: Sequence[Member]) -> int | None:
    """Bytes that the image is made long before the commands; None if they make it themselves."""
    if spec.size is not None:
        if members and spec.size < content.size_of(members):
            raise ImageTooSmall(spec.size, members, _enough(spec, members))
        return spec.size
    return _enough(spec, members) + spec.spare if spec.need is not None else None


def _enough(spec: ImageSpec, members: Sequence[Member]) -> int:
    """Bytes in which the content certainly fits, in whole MiB."""
    need = spec.need
    assert need is not None, "a format with a size says what it needs"
    inner = content.size_of(members) + spec.room + (content.inodes_of(members) + spec.inodes) * need.inode
    size = max(need.fixed + inner * (1000 + need.per_mille) // 1000, need.least)
    return -(-size // _MIB) * _MIB


def _inodes(size: int, now: int) -> int:
    """One inode for each 16 KiB, and a quarter more than there are files now: small images need their own."""
    return max(size // _BYTES_PER_INODE, now + now // 4 + 256)


def _prepare(
    spec: ImageSpec, members: Sequence[Member], words: dict[str, str], context: Context
) -> tuple[Path, Path | None]:
    """Write what the commands read besides the tar; returns (their directory, the fixups if any)."""
    fixups: Path | None = None
    cwd = context.work
    if spec.populate == "protofile":
        context.note("unpacking")
        prototype = protofile.write(members, context.work / "content")
        for lost in prototype.left_out:
            with context.log.open("a") as log:
                log.write(f"{spec.format}: left out: {lost}\n")
        words["protofile"] = prototype.path.name
        cwd, fixups = prototype.path.parent, prototype.fixups
    elif spec.fixups == "debugfs":
        fixups = debugfs.write_script(members, context.work)
    words["fixups"] = str(fixups)
    return cwd, fixups


def _run(
    command: Command, argv: Sequence[str], context: Context, *,
    cwd: Path, env: Mapping[str, str], stdin: Path | None,
) -> None:  # fmt: skip
    program = command.argv[0]
    context.note(program)
    before = context.log.stat().st_size if context.log.exists() else 0
    context.run(argv, cwd=cwd, env=env, stdin=stdin, timeout_s=_TIMEOUT_S,
                stdout=context.work / "stdout" if command.silent else None)  # fmt: skip
    if command.silent and (complaint := tooltree.complaint(program, context.log, before)):
        raise StepFailed(f"writing the image: {program} says: {complaint}")


def _filled(word: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        word = word.replace(f"{{{name}}}", value)
    return word
