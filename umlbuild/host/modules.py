"""A staged tree of kernel modules becomes `modules.tar`: dependencies listed, no links, fixed bytes.

Source: depmod(8), modprobe(8): modprobe reads /lib/modules/<release>/modules.dep.bin. The `build` and
`source` links that modules_install makes lead to directories of the build host.
"""

from __future__ import annotations

import os
from pathlib import Path

from umlbuild.errors import HostError
from umlbuild.host import process

_TIMEOUT_S = 600


def archive(staging: Path, release: str, out: Path, *, log: Path, symbols: Path | None = None) -> None:
    """Write `lib/modules/<release>` below `staging` to the tar file `out`; `symbols` is a System.map.

    Names are sorted, everything belongs to root, times are the epoch, modes do not show the umask. The
    directories above are left out: in a guest, /lib is a symlink.
    """
    tree = staging / "lib/modules" / release
    for link in ("build", "source"):
        (tree / link).unlink(missing_ok=True)
    if process.find("depmod") is None:
        raise HostError("listing the dependencies of kernel modules: no depmod", "apt-get install kmod")
    map_ = ["-e", "-F", os.fspath(symbols)] if symbols else []
    process.run(["depmod", *map_, "-b", os.fspath(staging), release], log=log, timeout_s=_TIMEOUT_S)
    process.run(
        [
            "tar", "--create", "--file", os.fspath(out), "--directory", os.fspath(staging), "--format=gnu",
            "--sort=name", "--owner=0", "--group=0", "--numeric-owner", f"--mtime=@{process.EPOCH}",
            "--mode=u=rwX,go=rX", f"lib/modules/{release}",
        ],
        log=log, timeout_s=_TIMEOUT_S,
    )  # fmt: skip


def empty_archive(out: Path) -> None:
    """An archive of nothing, for a kernel without modules. Source: tar(5): two zero blocks end an archive."""
    out.write_bytes(bytes(20 * 512))
