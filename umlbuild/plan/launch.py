"""Renders the text of a bundle's launcher: a template, its settings as shell assignments, and one sandbox. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from importlib import resources

from umlbuild.specs.launch import Disk, LaunchSettings, Uplink

MARKS = ("#@SETTINGS@\n", "#@FUNCTIONS@\n")


def part(name: str) -> str:
    """The text of one file of `umlbuild/launcher/`."""
    return (resources.files("umlbuild.launcher") / name).read_text()


def template() -> str:
    """The launcher's text before its parts are filled in."""
    return part("run.sh")


PARTS = {
    "bwrap": ("confined", "bwrap"),
    "landlock": ("confined", "plain", "landlock"),
    "none": ("plain", "none"),
}
"""Sandbox → the files in `launcher/sandboxes/` that it is made of."""


def functions(settings: LaunchSettings) -> str:
    """The files of shell functions that this launcher needs, in one text."""
    names = [f"sandboxes/{name}" for name in PARTS[settings.sandbox]]
    names += ["filters/some" if settings.filters or settings.egress else "filters/none"]
    names += ["disks/cow", "limits/scope", "checks/share", "checks/bundle", "checks/network"]
    names += [] if settings.uplink is None else ["uplinks/user"]
    return "\n".join(part(f"{name}.sh") for name in names)


def render(settings: LaunchSettings) -> str:
    """The whole text of `run`."""
    text = template()
    assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in _assignments(settings))
    for mark, filling in zip(MARKS, (assignments, functions(settings)), strict=True):
        before, found, after = text.partition(mark)
        assert found and mark not in after
        text = before + filling + after
    return text


def kernel_words(settings: LaunchSettings) -> tuple[list[str], list[str]]:
    """The kernel's words, and what comes after them: "--" with init's arguments, or nothing.

    UML appends `root=98:0` and `console=tty0` at the very end where they are missing, even after "--", and there
    they would be init's. Source: arch/um/kernel/um_arch.c (linux_main).
    """
    words = list(settings.cmdline)
    at = words.index("--") if "--" in words else len(words)
    words, rest = words[:at], words[at:]
    for name, default in (("root", "/dev/ubda"), ("console", "tty0")):
        if not any(word.startswith(f"{name}=") for word in words):
            words.insert(0, f"{name}={default}")
    return words, rest


def _assignments(settings: LaunchSettings) -> list[tuple[str, str]]:
    words, rest = kernel_words(settings)
    return [
        ("NAME", settings.name),
        ("IMAGE_ID", settings.image_id),
        ("IMAGE_MTIME", str(settings.image_mtime)),
        ("IMAGE_SIZE", str(settings.image_size)),
        ("MEMORY_MIB", str(settings.memory_mib)),
        ("KERNEL_VERSION", settings.kernel_version),
        ("CMDLINE", _evaluated(words)),
        ("INIT_ARGS", _evaluated(rest)),
        ("DISKS", " ".join(map(_disk, settings.disks))),
        ("ROOT_READ_ONLY", _flag(settings.root_read_only)),
        ("SETARCH", _flag(settings.setarch)),
        ("EPHEMERAL", _flag(settings.state == "ephemeral")),
        ("TIMEOUT_S", "" if settings.timeout_s is None else str(settings.timeout_s)),
        ("PIN", settings.pin),
        ("NUMA", settings.numa),
        ("PROCESSES", str(settings.processes)),
        ("LOG_MIB", str(settings.log_mib)),
        ("INTERPRETER", settings.interpreter),
        ("SUMS", settings.sums),
        ("HOST_NETWORK", _flag(settings.host_network)),
        ("HOST_PATHS", " ".join(settings.host_paths)),
        ("FILTERS", " ".join(settings.filters)),
        ("FILTERED_FDS", " ".join(map(str, settings.filtered_fds))),
        ("EGRESS", " ".join(":".join(row) for row in settings.egress)),
        ("CAPABILITIES", " ".join(settings.capabilities)),
        ("DESCRIPTORS", " ".join(map(str, settings.descriptors))),
        ("PACKET_SOCKETS", " ".join(f"{s.fd}:{s.ifname}:{s.filter}" for s in settings.packet_sockets)),
        *_uplink(settings.uplink),
        ("SHARE_MODES", " ".join("rw" if share.writable else "ro" for share in settings.shares)),
        *((f"SHARE_AT_{number}", share.guest) for number, share in enumerate(settings.shares)),
        *((f"SHARE_OF_{number}", share.host) for number, share in enumerate(settings.shares)),
    ]


def _uplink(settings: Uplink | None) -> list[tuple[str, str]]:
    if settings is None:
        return [("UPLINK", "")]
    return [
        ("UPLINK", str(settings.unit)),
        ("UPLINK_VECTOR", settings.vector),
        ("UPLINK_FORWARDS", " ".join(settings.forwards)),
        ("UPLINK_OPTIONS", " ".join(_slirp(settings))),
        ("UPLINK_LOOPBACK", _loopback(settings)),
        ("UPLINK_PROGRAM", part("uplinks/user.pl")),
    ]


def _loopback(settings: Uplink) -> str:
    """What of the host's loopback the guest may reach, as `uplinks/user.pl` wants it."""
    if settings.host_loopback:
        return "open"
    return "replies" if any(forward.startswith("udp:") for forward in settings.forwards) else "shut"


def _slirp(settings: Uplink) -> list[str]:
    """Options of slirp4netns besides its sockets. Source: slirp4netns(1)."""
    words = [f"--mtu={settings.mtu}"]
    words += ["--disable-host-loopback"] if _loopback(settings) == "shut" else []
    return words + (["--enable-ipv6"] if settings.ipv6 else [])


def _evaluated(words: Iterable[str]) -> str:
    """A list in a variable: the launcher evals it, so each word is quoted on its own."""
    return " ".join(map(shlex.quote, words))


def _disk(disk: Disk) -> str:
    flags = disk.flags if "d" in disk.flags else disk.flags + "d"
    return f"{disk.unit}:{disk.file}:{'copy' if disk.copy_on_start else 'shared'}:{disk.id}:{flags}"


def _flag(value: bool) -> str:
    return "1" if value else ""
