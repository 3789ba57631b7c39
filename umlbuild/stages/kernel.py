"""The kernel stage: source and configuration become `linux`, `config`, `release` and `modules.tar`.

A static `linux` needs no file of the host that runs it, so that is what kernels are which can be linked so; the
libraries of the others are put beside them. Two builds of one key are byte-identical wherever they happen
(see `host.kbuild`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from umlbuild import kconfig
from umlbuild.host import distcc, libraries, modules, xstate
from umlbuild.host.identity import compilers_library
from umlbuild.host.kbuild import STATIC, Kbuild, ccache_directory, links_statically, source_tree, uses_hidden_tools
from umlbuild.specs.kernel import KernelSpec
from umlbuild.stages.context import Context


def run(spec: KernelSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out` with `linux`, `config`, `release` and `modules.tar`, and with a dynamic kernel's libraries."""
    tree = source_tree(spec.tree, context.sources, inputs.get("source"))
    objects = context.work / "build"
    objects.mkdir()
    shutil.copyfile(inputs["config"] / "config", objects / ".config")
    config = kconfig.parse((objects / ".config").read_text(), "config")
    wanted = context.build
    helpers = distcc.usable(os.environ, config, context.work, context.log, context.note) if wanted.distcc else ()
    ccache = ccache_directory(context.work) if wanted.ccache else None
    kbuild = Kbuild(tree, objects, context.log, context.cores(distcc.jobs(helpers)), ccache, helpers)
    hide = not uses_hidden_tools(config)
    has_modules = config.get("MODULES") == "y"

    context.note("compiling")
    static = links_statically(tree)
    kbuild.make("linux", *(["modules"] if has_modules else []), hide=hide, extra=STATIC if static else ())
    release = kbuild.release()
    context.run(["strip", "-o", os.fspath(out / "linux"), os.fspath(objects / "linux")], timeout_s=600)
    (out / "linux").chmod(0o755)
    libraries.put_beside(out / "linux", compilers_library)
    xstate.put_beside(out / "linux", spec.xstate, xstate.GCC, work=context.work, log=context.log)
    shutil.copyfile(objects / ".config", out / "config")
    (out / "release").write_text(f"{release}\n")
    if not has_modules:
        modules.empty_archive(out / "modules.tar")
        return
    context.note("installing modules")
    staging = context.work / "staging"
    destination = staging / "lib/modules" / release
    destination.mkdir(parents=True)
    # modules_install runs depmod on the build host's own /lib/modules: ours is run on the staged tree.
    kbuild.make(
        "modules_install", hide=hide,
        extra=[f"MODLIB={destination}", "INSTALL_MOD_STRIP=1", "DEPMOD=true"],
    )  # fmt: skip
    modules.archive(
        staging, release, out / "modules.tar", log=context.log, symbols=objects / "System.map"
    )
