"""The helper stage: C sources become one static program. Two builds of one key are byte-identical.

The sources are compiled by their bare names in a directory of their own and without debug information, so that no
path gets into the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from umlbuild.specs.helper import HelperSpec
from umlbuild.stages.context import Context

NAME = "jail"


def run(spec: HelperSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:  # noqa: ARG001
    """Fill `out` with the program. Raises: ToolFailed with what the compiler said."""
    context.note("compiling")
    for name, text in spec.sources:
        (context.work / name).write_text(text)
    programs = [name for name, _ in spec.sources if name.endswith(".c")]
    context.run(["gcc", *spec.flags, "-o", NAME, *programs], cwd=context.work, timeout_s=120)
    context.run(["strip", "-o", str(out / NAME), NAME], cwd=context.work, timeout_s=60)
    (out / NAME).chmod(0o755)
