"""The steps of the images: the programs that write them, the root image, data disks. Pure."""

from __future__ import annotations

import uuid

from umlbuild.kinds.images import Disk
from umlbuild.kinds.images.readonly import ReadOnlyKind
from umlbuild.kinds.size import BLOCK
from umlbuild.lock import Lock
from umlbuild.plan.inputs import Files
from umlbuild.plan.kernel import ARCHITECTURE
from umlbuild.plan.rootfs import Root
from umlbuild.plan.step import Step
from umlbuild.recipe import Recipe
from umlbuild.specs.packages import PackagesSpec
from umlbuild.specs.rootfs import ConfigureSpec
from umlbuild.specs.tools import ToolsSpec

_NAMESPACE = uuid.UUID("6f1ad3f2-5a53-4ad8-9a3d-1c0b6c7a8e11")
"""Of the file systems' identifiers, which are derived from names so that they are stable."""

_HOME = 256 << 10
"""Bytes that a user's account and home take at most: /etc/skel and the keys."""
_ROOM_STEP = 4 << 20
_INODES_STEP = 256


def tools_step(recipe: Recipe, lock: Lock) -> Step:
    """The step whose entry has the programs that write the images."""
    packages = Step(
        PackagesSpec(suite=None, architecture=ARCHITECTURE, pins=lock.tools),
        f"{len(lock.tools)} packages of image tools",
    )
    kinds = (recipe.image, *disks_of(recipe))
    spec = ToolsSpec(
        programs=tuple(sorted({name for kind in kinds for name in kind.programs})),
        libraries=tuple(sorted({name for kind in kinds for name in kind.libraries})),
    )
    return Step(spec, "image tools", {"packages": packages})


def image_step(recipe: Recipe, root: Root, tools: Step, files: Files) -> Step:
    """The step whose entry has the root's `root.img`.

    Where that can be, one image is made of what is installed, and what is declared is put into a copy of it: then
    another host name is a matter of a few blocks. Scripts may change anything: after them the image is written anew.
    """
    kind = recipe.image
    spec = kind.spec(uuid=_uuid(recipe, "root"))
    if kind.editor is None or root.spec.scripts:
        return Step(spec, f"{kind.kind} image", {"root": root.configured(whole=True), "tools": tools})
    more = {"remove": root.spec.remove, **(_room(root.spec, files) if spec.size is None else {})}
    installed = Step(
        spec.model_copy(update=more), f"{kind.kind} image of what is installed",
        {"root": root.installed, "tools": tools, **root.modules},
    )  # fmt: skip
    changes = root.configured(whole=False)
    return Step(
        kind.editor, f"{kind.kind} image",
        {"image": installed, "changes": changes, "tools": tools},
    )  # fmt: skip


def _room(spec: ConfigureSpec, files: Files) -> dict[str, int]:
    """What an automatic size leaves for what is declared: in large steps, so that an edit seldom crosses one."""
    sizes = [files.size(e.source) if e.source else len((e.content or "").encode()) for e in spec.entries]
    room = sum(-(-size // BLOCK) * BLOCK for size in sizes) + len(spec.users) * _HOME
    inodes = len(sizes) + len(spec.users) * _HOME // BLOCK
    return {"room": room + -room % _ROOM_STEP, "inodes": inodes + -inodes % _INODES_STEP}


def disk_steps(recipe: Recipe, tools: Step) -> dict[str, Step]:
    """disk0, disk1, … → the step whose entry has that data disk's pristine `root.img`."""
    return {
        f"disk{number}": Step(
            disk.spec(uuid=_uuid(recipe, f"disk{number}")), f"data disk {number}", {"tools": tools}
        )
        for number, disk in enumerate(disks_of(recipe))
    }


def disks_of(recipe: Recipe) -> tuple[Disk, ...]:
    """The data disks, and after them the one that takes an overlay's writes, if there is one."""
    overlay = overlay_disk_of(recipe)
    return (*recipe.disk, overlay) if overlay else recipe.disk


def overlay_disk_of(recipe: Recipe) -> Disk | None:
    """The disk under a read-only root's overlay; None if the root is written to, or the overlay is in memory."""
    return recipe.image.overlay_disk if isinstance(recipe.image, ReadOnlyKind) else None


def device_of(number: int) -> str:
    """The guest's name of a disk besides the root: the first is /dev/ubdb."""
    return f"/dev/ubd{'bcdefghijklmnop'[number]}"


def _uuid(recipe: Recipe, what: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{recipe.name}/{what}"))
