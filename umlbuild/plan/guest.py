"""The guest files that follow from a recipe's tables: names, fstab, time zone; `guestnet` has the network's. Pure.

One table, one truth: fstab and the launcher's disks come from the same `[[disk]]`, interfaces and the
kernel command line from the same `[[network]]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from umlbuild.kinds.inits.guest import script
from umlbuild.plan import guestnet
from umlbuild.plan.contributions import guest_of
from umlbuild.plan.image import device_of
from umlbuild.recipe import Recipe
from umlbuild.specs.rootfs import Entry

SHARES = "/usr/lib/umlbuild/shares"
"""Where the guest mounts what the launcher's `hostfs=` names: directories 0, 1, … in the recipe's order."""


def entries_of(recipe: Recipe) -> Iterator[Entry]:
    """Every file that the recipe's tables stand for."""
    root = recipe.rootfs
    hostname = root.hostname or recipe.name
    yield Entry(path="/etc/hostname", content=f"{hostname}\n")
    yield Entry(path="/etc/hosts", content=hosts_of(recipe, hostname))
    yield Entry(path="/etc/fstab", content=fstab_of(recipe))
    yield Entry(path="/etc/default/locale", content=f"LANG={root.locale}\n")
    yield Entry(path="/etc/timezone", content=f"{root.timezone}\n")
    yield Entry(path="/etc/localtime", type="symlink", target=f"/usr/share/zoneinfo/{root.timezone}")
    yield Entry(path="/etc/apt/sources.list", content=sources_of(recipe))
    if recipe.share and not recipe.launch.sandbox.OWN_ROOT:
        yield script("mount-hostfs.sh", path="/usr/sbin/mount.hostfs")
    for path in sorted(_mount_points(recipe)):
        yield Entry(path=path, type="dir", mode=0o755)
    yield from guestnet.entries_of(recipe, guest_of(recipe))


def hosts_of(recipe: Recipe, hostname: str) -> str:
    """/etc/hosts: the guest knows its own name without asking anybody."""
    root = recipe.rootfs
    own = f"{hostname}.{root.domain} {hostname}" if root.domain else hostname
    lines = [
        "127.0.0.1\tlocalhost",
        f"127.0.1.1\t{own}",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    ]
    lines += [f"{address}\t{' '.join(names)}" for address, names in sorted(root.hosts.items())]
    return "\n".join(lines) + "\n"


def fstab_of(recipe: Recipe) -> str:
    """/etc/fstab. Source: uml-facts 8: the HOWTO's line has neither mount point nor the right device."""
    image = recipe.image
    rows = [("/dev/ubda", "/", image.filesystem, image.mount_options, "0", "1" if image.checked else "0")]
    if image.read_only:
        # The real root is the overlay that overlay-init made; remounting the lower device is no use.
        rows = []
    for number, disk in enumerate(recipe.disk):
        if disk.mount is not None:
            row = (device_of(number), disk.mount, disk.filesystem, disk.mount_options)
            rows.append((*row, "0", "2" if disk.checked else "0"))
    for tmpfs in recipe.rootfs.tmpfs:
        options = f"size={tmpfs.size},mode={tmpfs.mode},nosuid,nodev"
        rows.append(("tmpfs", tmpfs.path, "tmpfs", options, "0", "0"))
    rows += _share_rows(recipe)
    head = "# <device>\t<mount point>\t<type>\t<options>\t<dump>\t<pass>\n"
    return head + "".join("\t".join(row) + "\n" for row in rows)


def _share_rows(recipe: Recipe) -> Iterator[tuple[str, str, str, str, str, str]]:
    """One mount for all shares, since an option that names a part is spelled differently by each kernel and mount(8).
    Without a root of UML's own, shares are symlinks on the host, which hostfs follows only for a whole mount: then
    each is one, and our mount.hostfs tries the spellings.
    """
    if recipe.share and recipe.launch.sandbox.OWN_ROOT:
        yield ("none", SHARES, "hostfs", "nosuid,nodev", "0", "0")
    for number, share in enumerate(recipe.share):
        if recipe.launch.sandbox.OWN_ROOT:
            yield (f"{SHARES}/{number}", share.guest, "none", "bind", "0", "0")
        else:
            yield ("none", share.guest, "hostfs", f"nosuid,nodev,/{number}", "0", "0")


def sources_of(recipe: Recipe) -> str:
    """/etc/apt/sources.list: the recipe's own mirror, or a comment (a build host's mirror is not for guests)."""
    root = recipe.rootfs
    if root.mirror is None:
        return "# Name a mirror in the recipe (rootfs.mirror) to have it here, or write one:\n# deb URL " + (
            f"{root.suite} {' '.join(root.components)}\n"
        )
    return f"deb {root.mirror.split()[0]} {root.suite} {' '.join(root.components)}\n"


def mac_of(recipe: Recipe, number: int) -> str:
    """The MAC address of an interface: declared, or stable and locally administered by name and unit."""
    declared = recipe.network[number].mac
    if declared is not None:
        return declared
    digest = hashlib.sha256(f"{recipe.name}/{number}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _mount_points(recipe: Recipe) -> set[str]:
    points = {disk.mount for disk in recipe.disk if disk.mount is not None}
    points |= {tmpfs.path for tmpfs in recipe.rootfs.tmpfs}
    return points | {share.guest for share in recipe.share} | ({SHARES} if recipe.share else set())
