"""The peers: what one would type without umlbuild, as shell scripts that stop at the first error."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import seconds
from benchmarks.world import BUILD_S, KERNEL_S, World, remove

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

_MKOSI = """\
[Distribution]
Distribution=debian
Release=bookworm
Mirror={mirror}
[Output]
Format=disk
ImageId=bench
[Build]
Incremental=yes
CacheDirectory={place}/cache
PackageCacheDirectory={place}/packages
[Content]
Packages={names}
Bootable=no
WithDocs=yes
CleanPackageMetadata=no
"""
_PARTITION = "[Partition]\nType=root\nFormat=ext4\nCopyFiles=/\nMinimize=guess\n"

_WITHIN = """\
root=$1 place=$2
shift 2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
for directory in tmp run var/tmp; do mount -t tmpfs tmpfs "$root/$directory"; done
mount --bind "$place" "$root/mnt"
mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
cd /
umount -l /run/old
exec "$@"
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

    def make(self, target: str = "root.img") -> float:
        """Seconds to bring a file up to date. Raises: Failed."""
        return seconds(["make", "--silent", target], cwd=self.place, deadline_s=BUILD_S, env=self._world.env)

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


_ROUTER = r"""
dpkg-deb --fsys-tarfile "$1" | tar -xf - --wildcards './usr/src/linux-source-*.tar.xz'
mkdir linux && tar -xf usr/src/linux-source-*.tar.xz -C linux --strip-components=1
mkdir objects modules tree && cp "$2" objects/.config
make -s -C linux ARCH=um O="$PWD/objects" "-j$(nproc)" linux modules
make -s -C linux ARCH=um O="$PWD/objects" INSTALL_MOD_PATH="$PWD/modules" modules_install
shift 2
for repository; do
    names=$names,$(sed -n 's/^Package: //p' "$repository"/dists/*/*/*/Packages | paste -sd,)
    echo "deb [trusted=yes] copy:$repository bookworm main"
done >sources
merge='for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'
mmdebstrap --quiet --variant=essential --include="${names#,}" --setup-hook="$merge" bookworm root.tar - <sources
tar -xf root.tar -C tree && cp -a modules/lib/modules tree/usr/lib/
truncate -s 2G root.img && mke2fs -q -F -t ext4 -d tree root.img
"""


def router(world: World, source: Path, config: Path, repositories: Sequence[Path]) -> float:
    """Seconds of a router from nothing: source package unpacked, make, mmdebstrap, mke2fs. Raises: Failed."""
    place = world.root / "router-by-hand"
    place.mkdir()
    argv = ["sh", "-ec", _ROUTER, "sh", str(source), str(config), *map(str, repositories)]
    try:
        return seconds(argv, cwd=place, deadline_s=KERNEL_S, env=world.env)
    finally:
        remove(place)


@dataclass(frozen=True)
class Mkosi:
    """mkosi (25 or newer), with its cache of what is installed, for an ext4 of the same packages."""

    world: World
    mirror: str
    names: str
    """Packages, with commas."""
    root: Path | None = None
    """A Debian that has mkosi, if this machine has none; not changed but for what lies in its memory."""

    def missing(self) -> str:
        """The reason why it cannot run here, "" if it can."""
        if self.root is None:
            return missing("mkosi", "systemd-repart")
        return "" if (self.root / "usr/bin/mkosi").exists() else f"{self.root}: has no mkosi"

    def build(self, *words: str) -> float:
        """Seconds of a build with these options; the first one fills the cache. Raises: Failed."""
        place = self.world.root / "mkosi"
        seen = Path("/mnt") if self.root else place
        if not place.exists():
            for name in ("cache", "packages", "mkosi.repart"):
                (place / name).mkdir(parents=True)
            (place / "mkosi.conf").write_text(_MKOSI.format(mirror=self.mirror, place=seen, names=self.names))
            (place / "mkosi.repart/root.conf").write_text(_PARTITION)
        argv = ["mkosi", f"--directory={seen}", "-f", *words, "build"]
        if self.root:
            argv = ["sh", "-ec", _WITHIN, "sh", str(self.root), str(place), *argv]
        return seconds([*_OWN_MOUNTS, *argv], cwd=place, deadline_s=BUILD_S, env=self.world.env)
