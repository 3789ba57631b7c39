"""Renders the text of a bundle's launcher: a template, its settings as shell assignments, and one sandbox. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from importlib import resources

from umlbuild.specs.launch import Disk, LaunchSettings

MARKS = ("#@SETTINGS@\n", "#@SANDBOX@\n", "#@NETWORK@\n")


def template() -> str:
    """The launcher's text before settings and sandbox are filled in."""
    return (resources.files("umlbuild.launcher") / "run.sh").read_text()


def sandbox(kind: str) -> str:
    """The shell functions of one sandbox."""
    return (resources.files("umlbuild.launcher") / "sandboxes" / f"{kind}.sh").read_text()


def network() -> str:
    """The shell functions that look at what interfaces need."""
    return (resources.files("umlbuild.launcher") / "network.sh").read_text()


def render(settings: LaunchSettings) -> str:
    """The whole text of `run`."""
    text = template()
    assignments = "".join(f"{name}={shlex.quote(value)}\n" for name, value in _assignments(settings))
    for mark, filling in zip(MARKS, (assignments, sandbox(settings.sandbox), network()), strict=True):
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
        ("LOG_MIB", str(settings.log_mib)),
        ("INTERPRETER", settings.interpreter),
        ("SUMS", settings.sums),
        ("HOST_NETWORK", _flag(settings.host_network)),
        ("HOST_PATHS", " ".join(settings.host_paths)),
        ("FILTER_FILES", " ".join(settings.filter_files)),
        ("CAPABILITIES", " ".join(settings.capabilities)),
        ("DESCRIPTORS", " ".join(map(str, settings.descriptors))),
        # FD:IFNAME:FILTER, the filter's file in the bundle or nothing
        ("PACKET_SOCKETS", " ".join(f"{s.fd}:{s.ifname}:{s.filter or ''}" for s in settings.packet_sockets)),
        ("SHARE_MODES", " ".join("rw" if share.writable else "ro" for share in settings.shares)),
        *((f"SHARE_AT_{number}", share.guest) for number, share in enumerate(settings.shares)),
        *((f"SHARE_OF_{number}", share.host) for number, share in enumerate(settings.shares)),
    ]


def _evaluated(words: Iterable[str]) -> str:
    """A list in a variable: the launcher evals it, so each word is quoted on its own."""
    return " ".join(map(shlex.quote, words))


def _disk(disk: Disk) -> str:
    flags = disk.flags if "d" in disk.flags else disk.flags + "d"
    return f"{disk.unit}:{disk.file}:{'copy' if disk.copy_on_start else 'shared'}:{disk.id}:{flags}"


def _flag(value: bool) -> str:
    return "1" if value else ""
