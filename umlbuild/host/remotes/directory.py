"""A directory, e.g. of a network file system: `/srv/umlbuild-store`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from umlbuild import digest
from umlbuild.errors import FetchError
from umlbuild.host.remotes.base import Remote


class Directory(Remote):
    """Files below a directory."""

    @classmethod
    def at(cls, address: str, environ: Mapping[str, str]) -> Self | None:  # noqa: ARG003
        """An absolute path."""
        return cls(address) if address.startswith("/") else None

    def read(self, name: str) -> bytes | None:
        """A small file."""
        if not Path(self.address).is_dir():
            raise FetchError(f"{self.address}: no such directory")
        try:
            return Path(self.address, name).read_bytes()
        except FileNotFoundError:
            return None

    def load(self, name: str, dest: Path, sha256: str, size: int) -> None:
        """Copy it, and check the copy."""
        shutil.copyfile(Path(self.address, name), dest)
        if dest.stat().st_size != size or digest.of_file(dest) != sha256:
            raise FetchError(f"{self.address}/{name}: has other bytes than promised")

    def save(self, name: str, source: Path) -> None:
        """Copy it beside, then rename."""
        target = Path(self.address, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, part = tempfile.mkstemp(prefix=".", dir=target.parent)
        os.close(fd)
        try:
            shutil.copyfile(source, part)
            os.chmod(part, 0o644)
            os.rename(part, target)
        finally:
            Path(part).unlink(missing_ok=True)
