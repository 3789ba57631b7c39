"""`bootstrap = "mmdebstrap"` (the default): quick, and straight into a tar archive.

    [rootfs]
    bootstrap = "mmdebstrap"

Source: mmdebstrap(1) 1.3.5: `--mode=unshare` as root enters own mount, pid, ipc and uts namespaces and
makes no device nodes that it may not make; experiments A1 for `fakechroot`.
"""

from __future__ import annotations

from typing import Literal

from umlbuild.specs.model import Model
from umlbuild.specs.rootfs import Method

# bookworm has merged directories only if somebody merges them; usr-is-merged says (and checks) that it
# was done, and spares usrmerge, which brings perl along. Later suites' base-files has the links itself.
_MERGE = (
    'case ",{packages}," in *,usr-is-merged,*) '
    'for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d" && ln -s "usr/$d" "$1/$d"; done;; esac'
)
# The base is there before apt looks. Its tar holds no devices and nothing of the moment.
_UNPACK = 'tar -C "$1" --numeric-owner --same-owner -p --xattrs --xattrs-include="*" -xf "{base}"'
# fakeroot forgets the type of a file whose attributes are set before its owner, as tar does it (measured: "Unknown
# file type" for bookworm's ping, with a capability). The stage puts the attributes back.
_UNPACK_FAKE = 'tar -C "$1" --numeric-owner --same-owner -p -xf "{base}"'


class Mmdebstrap(Model):
    """mmdebstrap, which lets apt install into a directory or a tar archive."""

    kind: Literal["mmdebstrap"] = "mmdebstrap"

    def method(self, suite: str, architecture: str) -> Method:
        """Its own choice by variant is left out: every package is named."""
        return _method(suite, architecture, unshare=_MERGE, fakechroot=_MERGE)

    def layer(self, suite: str, architecture: str) -> Method:
        """The same over an unpacked base: the repository has no essential package, so apt finds only what to add."""
        return _method(suite, architecture, unshare=_UNPACK, fakechroot=_UNPACK_FAKE)


def _method(suite: str, architecture: str, *, unshare: str, fakechroot: str) -> Method:
    """The command with its setup hook, by mode."""

    def argv(mode: str, hook: str) -> tuple[str, ...]:
        return (
            "mmdebstrap",
            f"--mode={mode}",
            "--variant=essential",
            "--format=tar",
            "--dpkgopt=force-unsafe-io",
            f"--architectures={architecture}",
            "--include={packages}",
            f"--setup-hook={hook}",
            suite,
            "{target}",
            # copy: reads from outside, so nothing of the repository needs to be seen inside the root.
            f"deb [trusted=yes] copy:{{repository}} {suite} main",
        )

    return Method(makes="tar", argv=argv("unshare", unshare), fake_argv=argv("fakechroot", fakechroot))
