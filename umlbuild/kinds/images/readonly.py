"""What squashfs and erofs share: the root is an overlay, writes go to memory or to a disk of their own.

The guest's process 1 is `/usr/lib/umlbuild/overlay-init`, which mounts the overlay and hands over to the
real init (`umlbuild.overlay=tmpfs` or `umlbuild.overlay=/dev/ubdX` on the kernel command line).
"""

from __future__ import annotations

from typing import Literal

from umlbuild.kinds import symbols
from umlbuild.kinds.contribution import Contribution
from umlbuild.kinds.images.base import ImageKind, both
from umlbuild.kinds.images.disk import Disk
from umlbuild.kinds.inits import guest
from umlbuild.kinds.size import Size


class ReadOnlyKind(ImageKind):
    """An image that never changes, below an overlay."""

    overlay: Literal["tmpfs", "disk"] = "tmpfs"
    """Where the guest's writes go: "tmpfs" (memory, gone at power-off) or "disk" (an ext4 of its own)."""
    overlay_size: Size = "1G"
    """Apparent size of that disk."""

    @property
    def overlay_disk(self) -> Disk | None:
        """The disk for the writes; the launcher attaches it after all data disks."""
        if self.overlay == "tmpfs":
            return None
        return Disk(size=self.overlay_size, filesystem="ext4", label="overlay", flags="d")

    @property
    def mount_options(self) -> str:
        return "ro"

    @property
    def read_only(self) -> bool:
        return True

    @property
    def tools(self) -> tuple[str, ...]:
        return (*self.own_tools, *(self.overlay_disk.tools if self.overlay_disk else ()))

    @property
    def programs(self) -> tuple[str, ...]:
        return (*self.own_programs, *(self.overlay_disk.programs if self.overlay_disk else ()))

    @property
    def own_tools(self) -> tuple[str, ...]:
        """`tools` without the overlay's."""
        raise NotImplementedError

    @property
    def own_programs(self) -> tuple[str, ...]:
        """`programs` without the overlay's."""
        raise NotImplementedError

    def overlaid(self, *own: Contribution) -> Contribution:
        """This kind's own contributions and what the overlay needs."""
        parts = [*own, Contribution(kconfig=symbols.OVERLAY, optional_kconfig=symbols.OVERLAY_OPTIONAL)]
        if self.overlay_disk:
            parts.append(self.overlay_disk.contribute())
        return Contribution(
            kconfig=both(*(part.kconfig for part in parts)),
            optional_kconfig=both(*(part.optional_kconfig for part in parts)),
            entries=(guest.script("overlay-init.sh"),),
        )
