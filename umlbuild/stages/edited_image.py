"""Edited image: a copy of an ext4 image in which what is declared was put by debugfs. A host name writes a few blocks.

There is no other way to such an image, so it is the same whether the one below it was there or not. A file that is
replaced leaves its old blocks behind as free ones: what a package brought, never what a recipe did.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from umlbuild.errors import StepFailed, UserError
from umlbuild.host import changes, content, debugfs, seal, sparse, tooltree
from umlbuild.kinds.size import about
from umlbuild.specs.image import EditedImageSpec
from umlbuild.stages.context import Context

_TIMEOUT_S = 3600
_MIB = 1 << 20
_FULL = ("Could not allocate", "No free space")
"""What debugfs says when blocks or inodes run out. Source: e2fsprogs lib/ext2fs/ext2_err.et."""


def run(spec: EditedImageSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Write `out/root.img`. Raises: UserError (no room), StepFailed, ToolFailed."""
    below, image = inputs["image"] / seal.IMAGE, out / seal.IMAGE
    sparse.copy(below, image)
    image.chmod(0o644)
    wanted = changes.read(inputs["changes"])
    script = debugfs.write_changes(wanted, context.work)
    start = tooltree.tool_argv(inputs["tools"], spec.editor, preload=spec.preload)
    since = context.log.stat().st_size if context.log.exists() else 0
    context.run(
        [*start, "-w", "-f", str(script), str(image)], timeout_s=_TIMEOUT_S, stdout=context.work / "stdout"
    )
    if said := tooltree.complaint(spec.editor, context.log, since):
        if any(word in said for word in _FULL):
            size = image.stat().st_size
            enough = about(-(-(size + content.size_of(wanted.put)) // _MIB + 1) * _MIB)
            raise UserError(
                f"image.size = {about(size)} has no room for what the recipe puts into the root file system",
                f'image.size = "{enough}", or leave packages and files out',
            )
        raise StepFailed(f"editing the image: {spec.editor} says: {said}")
    seal.seal(image, below)
