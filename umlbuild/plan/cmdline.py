"""The kernel command line that the recipe decides. Pure.

The launcher adds what depends on the start: memory, ubd devices, consoles, directories, lpj.
Source: uml-facts 1 (limits, root names) and 2.2 (vector options).
"""

from __future__ import annotations

from umlbuild.errors import RecipeError
from umlbuild.kinds.transports.base import FIRST_DESCRIPTOR
from umlbuild.plan.filters import file_of
from umlbuild.plan.guest import mac_of
from umlbuild.plan.image import device_of, overlay_disk_of
from umlbuild.recipe import Recipe
from umlbuild.specs.launch import PacketSocket

MAX_OPTIONS = 20
"""Of one interface; UML writes beyond its table without a word. Source: vector_user.h MAXVARGS."""

UML_HEADROOM = 2
"""What UML takes without the option. Source: vector_kern.c DEFAULT_HEADROOM (the HOWTO says 32)."""

UNSET_FIELDS = ("gre", "l2tpv3")
"""Transports whose flags (sequence, counter, udp and both "pin_") UML sets but never clears, in memory that it does not
clear either: the kernel must. Source: vector_transports.c; kernel-parameters.txt init_on_alloc."""

LIMIT = 4096 - 1024
"""COMMAND_LINE_SIZE of arch/um less what the launcher may add."""


def words_of(recipe: Recipe, file: str) -> tuple[str, ...]:
    """The words in order. Raises: RecipeError when UML could not carry them."""
    image, init = recipe.image, recipe.rootfs.init
    words = ["root=/dev/ubda", f"rootfstype={image.filesystem}"]
    if image.read_only:
        words += ["ro", "init=/usr/lib/umlbuild/overlay-init"]
        overlay = device_of(len(recipe.disk)) if overlay_disk_of(recipe) else "tmpfs"
        words += [f"umlbuild.overlay={overlay}", f"umlbuild.init={init.program}"]
    else:
        words += ["rw", f"init={init.program}"]
        if image.root_flags:
            words.append(f"rootflags={image.root_flags}")
    words += [
        vector_of(recipe, number) for number, net in enumerate(recipe.network)
        if net.transport.kind != "user"  # the launcher makes its socket, and adds the word
    ]  # fmt: skip
    if any(net.transport.kind in UNSET_FIELDS for net in recipe.network):
        words.append("init_on_alloc=1")
    if recipe.launch.trust_userspace:
        words.append("seccomp=on")
    if recipe.launch.cpus > 1:
        words.append(f"ncpus={recipe.launch.cpus}")
    words += recipe.launch.cmdline
    length = sum(len(word.encode()) + 1 for word in words)
    if length > LIMIT:
        raise RecipeError([f"{file}: launch.cmdline: {length} bytes of kernel command line; {LIMIT} are possible"])
    return tuple(words)


def vector_of(recipe: Recipe, number: int) -> str:
    """`vecN:transport=…,…` of one interface. UML takes at most 20 options and checks nothing."""
    net = recipe.network[number]
    net = recipe.network[number]
    own = [("transport", net.transport.name), *net.transport.options()]
    if (socket := packet_socket_of(recipe, number)) is not None:
        own.append(("fd", str(socket.fd)))  # its filter is attached and locked
    elif (filter_file := file_of(net, number)) is not None:
        own.append(("bpffile", filter_file))
    word = f"vec{number}:" + ",".join(f"{name}={value}" for name, value in own) + "," + common_of(recipe, number)
    assert word.count(",") < MAX_OPTIONS and ",," not in word
    return word


def common_of(recipe: Recipe, number: int) -> str:
    """The options that every transport has."""
    net = recipe.network[number]
    options = [("mac", mac_of(recipe, number)), ("depth", str(net.depth)), ("mtu", str(net.largest))]
    options.append(("gro", str(int(net.gro))))
    if net.headroom != UML_HEADROOM:
        options.append(("headroom", str(net.headroom)))
    if not net.vec:
        options.append(("vec", "0"))
    return ",".join(f"{name}={value}" for name, value in options)


def packet_socket_of(recipe: Recipe, number: int) -> PacketSocket | None:
    """The socket that is open when UML starts: of `raw` by descriptor."""
    net = recipe.network[number]
    ifname, filter_file = net.transport.packet_interface, file_of(net, number)
    if ifname is None or filter_file is None:
        return None
    return PacketSocket(fd=FIRST_DESCRIPTOR + number, ifname=ifname, filter=filter_file)
