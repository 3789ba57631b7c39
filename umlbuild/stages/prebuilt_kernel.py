"""The prebuilt-kernel stage: a user-mode-linux package, in the shape of the kernel stage's output.

Source: dpkg-deb -c user-mode-linux: /usr/bin/linux.uml, /usr/lib/uml/modules/<release>/; `linux --showconfig`
and `linux --version` print without booting (arch/um/kernel/um_arch.c).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from umlbuild import kconfig
from umlbuild.errors import StepFailed
from umlbuild.host import libraries, modules, process, xstate
from umlbuild.specs.kernel import PrebuiltKernelSpec
from umlbuild.stages.context import Context

_PROGRAM = "usr/bin/linux.uml"
_MODULES = "usr/lib/uml/modules"


def run(spec: PrebuiltKernelSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out` with `linux`, `lib/`, `interpreter`, `config`, `release` and `modules.tar`."""
    root = context.work / "package"
    pool = inputs["packages"] / "pool"
    context.note("unpacking")
    _unpack(pool / spec.pin.filename, root, (f"./{_PROGRAM}", f"./{_MODULES}"), context)
    for pin in spec.libraries:
        # Merged-usr packages have usr/lib/<triplet>, older ones lib/<triplet>.
        _unpack(pool / pin.filename, context.work / "libraries", ("./*lib/*-linux-gnu/*.so.*",), context)
    linux = out / "linux"
    shutil.copyfile(root / _PROGRAM, linux)
    linux.chmod(0o755)
    libraries.put_beside(linux, lambda name: _found(context.work / "libraries", name))
    xstate.put_beside(linux, spec.xstate, _compiler(spec, pool, context), work=context.work, log=context.log)
    release = _printed(linux, "--version", context).strip()
    (out / "release").write_text(f"{release}\n")
    config = _printed(linux, "--showconfig", context)
    (out / "config").write_text(config)
    _check_built_in(spec, config)

    tree = root / _MODULES / release
    if not tree.is_dir():
        raise StepFailed(f"{spec.pin.filename}: has no modules of its own kernel {release}")
    staging = context.work / "staging" / "lib/modules"
    staging.mkdir(parents=True)
    tree.rename(staging / release)
    modules.archive(staging.parent.parent, release, out / "modules.tar", log=context.log)


def _compiler(spec: PrebuiltKernelSpec, pool: Path, context: Context) -> list[str]:
    """tcc with the C library of its own suite."""
    place = context.work / "compiler"
    _unpack(pool / spec.compiler.filename, place, ("./usr/bin/tcc",), context)
    program = place / "usr/bin/tcc"
    libraries.put_beside(program, lambda name: _found(context.work / "libraries", name))
    return libraries.loader_argv(program)


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


def _printed(linux: Path, option: str, context: Context) -> str:
    """What the kernel prints for an option. With its own C library: the host's may be too old for it."""
    argv = [*libraries.loader_argv(linux), option]
    return process.output(argv, log=context.log, timeout_s=30)


def _unpack(package: Path, root: Path, members: tuple[str, ...], context: Context) -> None:
    root.mkdir(exist_ok=True)
    context.pipeline(
        [
            ["dpkg-deb", "--fsys-tarfile", os.fspath(package)],
            [
                "tar", "-x", "-C", os.fspath(root), "--no-same-owner", "--preserve-permissions", "--wildcards",
                *members,
            ],
        ],
        timeout_s=600,
    )  # fmt: skip


def _found(root: Path, name: str) -> Path | None:
    """Where the unpacked packages have a library; a link that leads out of them would name the host's."""
    for path in sorted(root.glob(f"**/*-linux-gnu/{name}")):
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            return path
    return None
