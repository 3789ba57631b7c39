"""Small bundles by hand for the tests of releases."""

from __future__ import annotations

import os
from pathlib import Path

import tomli_w

from umlbuild import digest

STAMP = 1_710_000_000
"""mtime of the image."""

PIECES = {0: b"start", 1 << 20: b"x" * 5000, (3 << 20) + 100: b"end"}
"""Offset → content of the image; zeros between."""

SIZE = (4 << 20) + 512


def bundle(where: Path, text: str = "one", *, holes: bool = True, umask: int = 0o022) -> Path:
    """A directory as the bundle step makes it; with or without holes in its image."""
    before = os.umask(umask)
    try:
        (where / "lib").mkdir(parents=True)
        (where / "lib" / "libc.so.6").write_bytes(b"\x7fELF")
        (where / "run").write_text(f"#!/bin/sh\necho {text}\n")
        for name in ("recipe.toml", "recipe.lock.toml"):
            (where / name).write_text(f"# {name}\n")
        with (where / "root.img").open("wb") as file:
            if not holes:
                file.write(bytes(SIZE))
            for at, piece in PIECES.items():
                file.seek(at)
                file.write(piece)
            os.truncate(file.fileno(), SIZE)
    finally:
        os.umask(before)
    modes = {"lib": 0o755, "lib/libc.so.6": 0o755, "run": 0o755, "root.img": 0o444}
    for path in where.rglob("*"):
        path.chmod(modes.get(str(path.relative_to(where)), 0o644))
    os.utime(where / "root.img", (STAMP, STAMP))
    files = {
        str(path.relative_to(where)): {
            digest.kind_of(path.name): digest.of_content(path), "size": path.stat().st_size,
            "mode": f"{path.stat().st_mode & 0o777:04o}",
        }
        for path in sorted(where.rglob("*")) if path.is_file()
    }  # fmt: skip
    (where / "manifest.toml").write_text(tomli_w.dumps({"format": 1, "name": "m", "umlbuild": "0", "files": files}))
    (where / "manifest.toml").chmod(0o644)
    return where


def age(where: Path) -> None:
    """Give everything but the image another mtime."""
    for path in where.rglob("*"):
        if path.suffix != ".img":
            os.utime(path, (1_000_000_000, 1_000_000_000))
