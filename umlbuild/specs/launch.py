"""What the launcher of a bundle is told; rendered into its text by `umlbuild.plan.launch`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from umlbuild.specs.model import Model

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""Of a machine: also the name of a directory, and a word on UML's command line."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]

FilterFile = Annotated[str, Field(pattern=r"^filters/vec[0-9]{1,2}\.bpf$")]

ShortHex = Annotated[str, Field(pattern=r"^([0-9a-f]{8,64}|@[A-Z0-9]+_ID@)$")]
"""Of an image's content; or the placeholder that the bundle stage fills in, since a plan is made before
the image is (so are the two below)."""

Word = Annotated[str, Field(pattern=r"^[ -~]+$")]
"""One printable ASCII word of the kernel command line, spelled as the kernel wants it: a space needs literal
double quotes around it, inside the word."""

WORDS_LIMIT = 3000
"""Bytes. UML's command line holds 4096 (COMMAND_LINE_SIZE); the launcher adds up to 500 of its own, and the
user's extra arguments want room. Source: arch/um/kernel/um_arch.c (add_arg)."""


class Disk(Model):
    """A data disk: `ubd<unit>`."""

    unit: Annotated[int, Field(ge=1, le=14)]
    """1 to 14 (ubdb to ubdo); 0 is the root, and by 15 `umlbuild exec` hands files to the guest."""
    file: FileName
    """Its name in the bundle."""
    id: ShortHex
    """Changes with the template's content: a new id means a new copy for the guest."""
    flags: Annotated[str, Field(pattern=r"^[rsdct]{0,6}$")] = "s"
    """UML's letters: r read-only, s synchronous (the only way in which a guest's fsync reaches the host), c shared,
    t no discard. d (raw, never look for a COW header: a guest could forge one and read any file of the host)
    is always added."""
    copy_on_start: bool = True
    """The bundle's file is a template, and the guest writes to a sparse copy; false only for read-only disks."""

    @field_validator("flags")
    @classmethod
    def _once(cls, flags: str) -> str:
        if len(set(flags)) != len(flags):
            raise ValueError("a flag is given twice")
        return flags


class Share(Model):
    """A directory of the host that the guest sees."""

    host: str
    """Its path there."""
    guest: str
    """Where the guest has it: by this, `run --share` tells shares apart."""
    writable: bool = False


class Uplink(Model):
    """The interface behind slirp4netns; the launcher knows the path of its socket."""

    unit: Annotated[int, Field(ge=0)]
    """vec<unit>"""
    vector: Annotated[str, Field(pattern=r"^[a-z0-9:=,]+$")]
    """Its options for UML, besides `transport` and `dst`."""
    mtu: int
    host_loopback: bool = False
    """Whether the guest may reach the host's 127.0.0.1."""
    ipv6: bool = False
    forwards: tuple[Annotated[str, Field(pattern=r"^(tcp|udp)(:[0-9.]+){4}$")], ...] = ()
    """protocol:address:port of the host:address:port of the guest."""


class PacketSocket(Model):
    """A packet socket on an interface of the host, behind a filter, that is open when UML starts (`jail packet`)."""

    fd: Annotated[int, Field(ge=200, le=1023)]
    """Its number in UML, and in the launcher if that is started with it."""
    ifname: Annotated[str, Field(pattern=r"^[!-~]{1,15}$")]
    filter: FilterFile
    """A file of the bundle with a classic BPF program (an array of struct sock_filter, host byte order)."""


class LaunchSettings(Model):
    """All that distinguishes one bundle's launcher from another's."""

    name: Name
    image_id: ShortHex
    """Changes with root.img: the guest's writes to one image are never laid over another."""
    image_mtime: Annotated[int, Field(ge=0, lt=1 << 32)] | Literal["@IMAGE_MTIME@"]
    """Seconds; what the bundle stage sets. UML tells backing files apart by this and the size."""
    image_size: Annotated[int, Field(gt=0)] | Literal["@IMAGE_SIZE@"]
    """Bytes."""
    memory_mib: Annotated[int, Field(ge=16, le=1 << 20)] = 256
    kernel_version: Word
    """For people, and for the key under which `lpj` is cached."""
    cmdline: tuple[Word, ...]
    """Kernel arguments (root=/dev/ubda, rw, init=…); words after "--" become init's arguments."""
    disks: tuple[Disk, ...] = ()
    root_read_only: bool = False
    """squashfs, erofs: no COW file, nothing to keep."""
    setarch: bool = True
    """Start without address space randomisation: 6.1 loses memory to it, 7.x saves itself a re-exec."""
    state: Literal["persistent", "ephemeral"] = "persistent"
    """Whether the guest's writes are kept unless the user says otherwise."""
    timeout_s: Annotated[int, Field(gt=0)] | None = None
    """Seconds after which the machine is ended; None: never."""
    pin: Annotated[str, Field(pattern=r"^[0-9,]*$")] = ""
    """CPUs of the host, as taskset wants them."""
    numa: Annotated[str, Field(pattern=r"^[0-9]*$")] = ""
    """NUMA node of the host."""
    sandbox: Literal["bwrap", "landlock", "none"] = "bwrap"
    """What stands between the guest and the host; a file of `umlbuild/launcher/sandboxes/`."""
    interpreter: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9/._-]+|@INTERPRETER@|)$")] = ""
    """The path at which the kernel's program wants its loader; empty for a static one. Loader and libraries are in the
    bundle's `lib/`."""
    sums: str = ""
    """The bundle's other files as sha256sum(1) prints them; empty: they are not checked."""
    host_network: bool = False
    """Whether a transport needs the host's network namespace."""
    host_paths: tuple[Word, ...] = ()
    """Devices and sockets of the host that transports open."""
    uplink: Uplink | None = None
    capabilities: tuple[Literal["net_raw"], ...] = ()
    """What UML needs over the network namespace that the launcher is started in."""
    descriptors: tuple[Annotated[int, Field(ge=20, le=199)], ...] = ()
    """Descriptors that whoever starts the launcher has opened for transports."""
    packet_sockets: tuple[PacketSocket, ...] = ()
    shares: tuple[Share, ...] = ()
    processes: Annotated[int, Field(ge=1, le=1 << 22)] = 1024
    """How many processes and threads the machine may have on the host."""
    filters: tuple[FilterFile, ...] = ()
    """Filters of frames, below the bundle: UML would go on without one that it cannot use."""
    filtered_fds: tuple[int, ...] = ()
    """Descriptors that must be sockets for their filters to work."""
    egress: tuple[tuple[Word, Word], ...] = ()
    """(interface, the host's interface) where `filters/<interface>.egress` must be in force."""
    log_mib: Annotated[int, Field(gt=0)] = 64
    """Where `run --log` stops to write, in MiB."""

    @field_validator("cmdline")
    @classmethod
    def _fits(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        size = sum(len(word) + 1 for word in words)
        if size > WORDS_LIMIT:
            raise ValueError(f"the kernel command line has {size} bytes, {WORDS_LIMIT} fit")
        for word in words:
            if word.count('"') % 2:
                raise ValueError(f"unbalanced double quotes in {word}")
        return words

    @field_validator("disks")
    @classmethod
    def _distinct(cls, disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
        units = [disk.unit for disk in disks]
        if len(set(units)) != len(units):
            raise ValueError("two disks have the same unit number")
        return disks
