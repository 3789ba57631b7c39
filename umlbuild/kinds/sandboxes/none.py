"""`sandbox = "none"`: no confinement. Each start must say `--no-sandbox`, too.

For guests that are trusted as much as a program of one's own, on hosts that have neither user namespaces nor
bubblewrap. Guest root can read and write whatever the user can who starts the machine.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.kinds.sandboxes.base import SandboxModel


class NoSandbox(SandboxModel):
    """No confinement."""

    CONFINES: ClassVar[bool] = False
    OWN_ROOT: ClassVar[bool] = False

    kind: Literal["none"] = "none"
