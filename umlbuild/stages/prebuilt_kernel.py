"""The prebuilt-kernel stage: a user-mode-linux package, in the shape of the kernel stage's output.

Source: dpkg-deb -c user-mode-linux: /usr/bin/linux.uml, /usr/lib/uml/modules/<release>/; `linux --showconfig`
and `linux --version` print without booting (arch/um/kernel/um_arch.c).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from umlbuild import kconfig
from umlbuild.errors import HostError, StepFailed, ToolFailed
from umlbuild.host import modules, process
from umlbuild.specs.kernel import PrebuiltKernelSpec
from umlbuild.stages.context import Context

_PROGRAM = "usr/bin/linux.uml"
_MODULES = "usr/lib/uml/modules"


def run(spec: PrebuiltKernelSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out` with `linux`, `config`, `release` and `modules.tar`."""
    root = context.work / "package"
    root.mkdir()
    package = inputs["packages"] / "pool" / spec.pin.filename
    context.note("unpacking")
    context.pipeline(
        [
            ["dpkg-deb", "--fsys-tarfile", os.fspath(package)],
            [
                "tar", "-x", "-C", os.fspath(root), "--no-same-owner", "--preserve-permissions",
                f"./{_PROGRAM}", f"./{_MODULES}",
            ],
        ],
        timeout_s=600,
    )  # fmt: skip
    linux = out / "linux"
    shutil.copyfile(root / _PROGRAM, linux)
    linux.chmod(0o755)
    release = _printed(linux, "--version", spec, context).strip()
    (out / "release").write_text(f"{release}\n")
    config = _printed(linux, "--showconfig", spec, context)
    (out / "config").write_text(config)
    _check_built_in(spec, config)

    tree = root / _MODULES / release
    if not tree.is_dir():
        raise StepFailed(f"{spec.pin.filename}: has no modules of its own kernel {release}")
    staging = context.work / "staging" / "lib/modules"
    staging.mkdir(parents=True)
    tree.rename(staging / release)
    modules.archive(staging.parent.parent, release, out / "modules.tar", log=context.log)


def _check_built_in(spec: PrebuiltKernelSpec, config: str) -> None:
    """The root must be mounted before any module can be loaded. Raises: StepFailed naming what is not built in."""
    final = kconfig.parse(config, "--showconfig")
    lacking = [f"{symbol}={final.get(symbol, 'n')}" for symbol in spec.built_in if final.get(symbol) != "y"]
    if lacking:
        raise StepFailed(
            f"{spec.pin.name} {spec.pin.version}: cannot mount this image as its root: {', '.join(lacking)}, "
            "which must be built in",
            "use image.kind = \"ext4\", or build the kernel from source",
        )


def _printed(linux: Path, option: str, spec: PrebuiltKernelSpec, context: Context) -> str:
    """What the kernel prints for an option. Raises: HostError if the host's C library is too old for it."""
    try:
        return process.output([os.fspath(linux), option], log=context.log, timeout_s=30)
    except ToolFailed as error:
        needed = re.search(r"version `(GLIBC_[0-9.]+)' not found", "\n".join(error.tail))
        if needed is None:
            raise
        raise HostError(
            f"{spec.pin.name} {spec.pin.version}: this kernel needs {needed[1]}, a newer C library than this "
            "host's",
            'use the package of an older suite: source = { kind = "prebuilt", suite = "bookworm" }, '
            "or build the kernel from source",
        ) from error
