"""The peers: what one would type without umlbuild, as shell scripts that stop at the first error."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.programs import seconds
from benchmarks.world import BUILD_S, World, remove

_OWN_MOUNTS = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""debootstrap and mkosi mount /proc and more into their trees and leave that there when they are ended: in a namespace
of their own it goes with them. A removal that walked into it would do so on the host."""

_MAKEFILE = """\
root.img: root.tar hostname
\trm -rf tree && mkdir tree && tar -xf root.tar -C tree && cp hostname tree/etc/hostname
\ttruncate -s 512M $@.new && mke2fs -q -F -t ext4 -d tree $@.new && mv $@.new $@
root.tar: packages.list
\tmmdebstrap --quiet --variant=essential --include="$$(cat packages.list)" \
 --setup-hook='for d in bin sbin lib lib64; do mkdir -p "$$1/usr/$$d"; ln -s "usr/$$d" "$$1/$$d"; done' \
 bookworm $@ "deb [trusted=yes] copy:$(REPOSITORY) bookworm main"
"""


def missing(*programs: str) -> str:
    """The reason why a peer cannot run here, "" if it can."""
    gone = [name for name in programs if shutil.which(name) is None]
    return f"{', '.join(gone)}: not installed" if gone else ""


class Make:
    """A Makefile with mmdebstrap and mke2fs, from the very same packages in a local repository."""

    def __init__(self, world: World, repository: Path) -> None:
        self._world = world
        self.place = world.root / "make"
        self.place.mkdir()
        self.repository = world.root / "repository"
        shutil.copytree(repository, self.repository)
        (self.place / "Makefile").write_text(f"REPOSITORY = {self.repository}\n{_MAKEFILE}")
        index = next(self.repository.glob("dists/*/*/*/Packages")).read_text()
        names = sorted(line.partition(": ")[2] for line in index.splitlines() if line.startswith("Package: "))
        self.names = ",".join(names)
        (self.place / "packages.list").write_text(self.names)
        (self.place / "hostname").write_text("bench\n")

    def make(self) -> float:
        """Seconds to bring root.img up to date. Raises: Failed."""
        return seconds(["make", "--silent"], cwd=self.place, deadline_s=BUILD_S, env=self._world.env)

    def edit_hostname(self, name: str) -> None:
        """As an editor would."""
        (self.place / "hostname").write_text(f"{name}\n")

    def forget(self) -> None:
        """Begin from nothing."""
        for name in ("root.img", "root.tar"):
            (self.place / name).unlink(missing_ok=True)


def debootstrap(world: World, peer: Make) -> float:
    """Seconds of debootstrap and mke2fs, from nothing. Raises: Failed."""
    place = world.root / "debootstrap"
    place.mkdir()
    script = (
        f"debootstrap --no-check-gpg --variant=minbase bookworm tree file://{peer.repository} >/dev/null && "
        "truncate -s 512M root.img && mke2fs -q -F -t ext4 -d tree root.img"
    )
    try:
        return seconds([*_OWN_MOUNTS, "sh", "-ec", script], cwd=place, deadline_s=BUILD_S, env=world.env)
    finally:
        remove(place)


def mkosi(world: World, mirror: str, hostname: str) -> float:
    """Seconds of an incremental build with another host name. Raises: Failed."""
    place = world.root / "mkosi"
    (place / "cache").mkdir(parents=True, exist_ok=True)
    argv = [
        *_OWN_MOUNTS, "mkosi", "-d", "debian", "-r", "bookworm", "-m", mirror, "-t", "directory", "-O", "out",
        "--incremental",
        "--cache", str(place / "cache"), f"--hostname={hostname}", "-f", "build",
    ]  # fmt: skip
    return seconds(argv, cwd=place, deadline_s=BUILD_S, env=world.env)
