"""`sandbox = "bwrap"`: the default. Namespaces made by bubblewrap, and a filter of system calls.

UML runs in an empty root that holds its kernel, the C library of the bundle, its disks and the declared shares,
and nothing else of the host: no /proc, no home, no network unless a transport needs the host's. It has no
capability and cannot get one. The host that runs the machine needs the package `bubblewrap` and user namespaces.

Source: bwrap(1) of 0.8; `launcher/sandboxes/bwrap.sh` is what it does.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.kinds.sandboxes.base import SandboxModel


class Bwrap(SandboxModel):
    """Namespaces and a filter of system calls."""

    PROGRAMS: ClassVar[tuple[str, ...]] = ("bwrap",)

    kind: Literal["bwrap"] = "bwrap"
