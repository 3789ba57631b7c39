"""The kernel-config stage: a base configuration and the requested symbols become `config`, all honoured.

What does not survive olddefconfig is an error that names every such symbol with its unmet dependencies:
a kernel that silently lacks what the recipe asks for would fail much later, in the guest.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from umlbuild import kconfig
from umlbuild.errors import StepFailed
from umlbuild.host.kbuild import Kbuild, source_tree, uses_hidden_tools
from umlbuild.host.kconfig_tree import definitions_of
from umlbuild.kconfig_explain import explain
from umlbuild.specs.kernel import KernelConfigSpec
from umlbuild.stages.context import Context


def run(spec: KernelConfigSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out` with `config`."""
    tree = source_tree(spec.tree, context.sources, inputs.get("source"))
    objects = context.work / "config"
    objects.mkdir()
    kbuild = Kbuild(tree, objects, context.log, context.cores())
    dot_config = objects / ".config"
    if spec.base == "file":
        assert spec.base_file is not None, "base is a file without a digest"
        shutil.copyfile(context.source(spec.base_file, "kernel.base"), dot_config)
        base = kconfig.parse(dot_config.read_text(), "kernel.base")
    else:
        kbuild.make(spec.base)
        base = kconfig.parse(dot_config.read_text(), spec.base)
    known = definitions_of(tree)
    requested = {symbol: value for symbol, value in spec.optional_symbols if symbol in known}
    requested |= dict(spec.symbols)
    # Requests come last: of two members of a choice that are both y, the later line wins.
    values = {symbol: value for symbol, value in base.items() if symbol not in requested} | requested
    dot_config.write_text(kconfig.render(values.items()))
    kbuild.make("olddefconfig", hide=not uses_hidden_tools(values))
    final = kconfig.parse(dot_config.read_text(), ".config")
    failed = kconfig.unmet(requested, final)
    if failed:
        count = f"{len(failed)} symbol{'s' if len(failed) > 1 else ''}"
        raise StepFailed(
            f"configuring the kernel: {count} cannot have the requested value:\n"
            + "\n".join(f"  {line}" for line in explain(failed, known, final)),
            "also request what is named there (kernel.options or a fragment), or drop the request",
        )
    shutil.copyfile(dot_config, out / "config")
