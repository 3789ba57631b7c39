"""`sandbox = "landlock"`: for hosts without user namespaces. Landlock, and a stricter filter of system calls.

UML stays in the host's tree of files, but can open only its kernel, its disks, the declared shares, and a private
directory for its memory; it has no socket of its own, reaches no process but its own, and has no capability. The host
needs Linux 6.12 or newer with Landlock, and no package. What is weaker than in bubblewrap's namespaces: whether a file
of the host exists, its size, owner and times can be seen (stat), and where symlinks lead; the guest's memory has
no limit of its own beyond the size of its file; there is no mconsole. In a share nobody can change modes, owners and
times. Transports that open sockets do not work. A dynamic kernel runs with the host's C library.

Source: landlock(7); measured on Linux 6.18; `launcher/sandboxes/landlock.sh` is what it does.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.kinds.sandboxes.base import SandboxModel


class Landlock(SandboxModel):
    """Landlock and a strict filter of system calls, for hosts without user namespaces. Needs Linux 6.12, and a
    compiler for the build. No transport that opens a socket, no mconsole; in shares nobody changes modes, owners
    and times."""

    OWN_ROOT: ClassVar[bool] = False
    SOCKETS: ClassVar[bool] = False
    HELPER: ClassVar[bool] = True

    kind: Literal["landlock"] = "landlock"
