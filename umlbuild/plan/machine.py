"""The launcher's settings, as the recipe decides them. Pure."""

from __future__ import annotations

from umlbuild.kinds.size import bytes_of
from umlbuild.kinds.transports.user import User
from umlbuild.plan import cmdline, filters
from umlbuild.plan.image import disks_of
from umlbuild.plan.launch import render
from umlbuild.recipe import Recipe
from umlbuild.specs.launch import Disk, LaunchSettings, Share, Uplink


def launcher_of(recipe: Recipe, words: tuple[str, ...]) -> str:
    """The text of `run`, with the placeholders that the bundle stage fills in; `words` is the command line."""
    return render(settings_of(recipe, words))


def settings_of(recipe: Recipe, words: tuple[str, ...]) -> LaunchSettings:
    """What `run` is told."""
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
    transports = [net.transport for net in recipe.network]
    return LaunchSettings(
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
        pin=",".join(map(str, recipe.launch.pin)),
        numa="" if recipe.launch.numa is None else str(recipe.launch.numa),
        sandbox=recipe.launch.sandbox.kind,
        interpreter="@INTERPRETER@",
        sums="@SUMS@",
        host_network=any(transport.host_network for transport in transports),
        host_paths=tuple(dict.fromkeys(path for transport in transports for path in transport.host_paths)),
        capabilities=("net_raw",) if any("net_raw" in t.capabilities for t in transports) else (),
        descriptors=tuple(t.descriptor for t in transports if t.descriptor is not None),
        packet_sockets=tuple(
            s for n in range(len(transports)) if (s := cmdline.packet_socket_of(recipe, n)) is not None
        ),
        uplink=_uplink(recipe),
        shares=tuple(Share(host=s.host, guest=s.guest, writable=s.writable) for s in recipe.share),
        processes=recipe.launch.processes,
        filters=filters.files_of(recipe),
        filtered_fds=filters.filtered_fds(recipe),
        egress=filters.egress_of(recipe),
        log_mib=bytes_of(recipe.launch.log_limit) >> 20,
    )


def _uplink(recipe: Recipe) -> Uplink | None:
    """The interface with transport = "user", of which there is one at most."""
    for unit, net in enumerate(recipe.network):
        if isinstance(net.transport, User):
            return Uplink(
                unit=unit,
                vector=cmdline.common_of(recipe, unit),
                mtu=net.largest,
                host_loopback=net.transport.host_loopback,
                ipv6=net.transport.ipv6,
                forwards=net.transport.leads(net.address),
            )
    return None
