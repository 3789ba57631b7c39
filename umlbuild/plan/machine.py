"""The launcher's settings, as the recipe decides them. Pure."""

from __future__ import annotations

from umlbuild.kinds.size import bytes_of
from umlbuild.plan.image import disks_of
from umlbuild.plan.launch import render
from umlbuild.recipe import Recipe
from umlbuild.specs.launch import Disk, LaunchSettings


def launcher_of(recipe: Recipe, words: tuple[str, ...]) -> str:
    """The text of `run`, with the placeholders that the bundle stage fills in; `words` is the command line."""
    disks = tuple(
        Disk(
            unit=number + 1,
            file=f"disk{number}.img",
            id=f"@DISK{number}_ID@",
            flags=disk.flags,
            copy_on_start="r" not in disk.flags,
        )
        for number, disk in enumerate(disks_of(recipe))
    )
    settings = LaunchSettings(
        name=recipe.name,
        image_id="@IMAGE_ID@",
        image_mtime="@IMAGE_MTIME@",
        image_size="@IMAGE_SIZE@",
        memory_mib=bytes_of(recipe.launch.memory) >> 20,
        kernel_version="@KERNEL_RELEASE@",
        cmdline=words,
        disks=disks,
        root_read_only=recipe.image.read_only,
        state=recipe.launch.state,
        timeout_s=recipe.launch.timeout,
    )
    return render(settings)
