"""The Kconfig files of a kernel tree on disk, as `make ARCH=um` sees them."""

from __future__ import annotations

from pathlib import Path

from umlbuild.kconfig_language import Definition, definitions

_VARIABLES = {"SRCARCH": "um", "HEADER_ARCH": "x86", "SUBARCH": "x86", "srctree": "."}
"""Source: Makefile and arch/um/Makefile, on an x86 host."""


def definitions_of(tree: Path) -> dict[str, list[Definition]]:
    """Symbol → its definitions in a kernel tree."""

    def read(path: str) -> str | None:
        try:
            return (tree / path).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    return definitions(read, variables=_VARIABLES)
