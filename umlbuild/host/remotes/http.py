"""A web server that has files, and takes them by PUT if one shall push: `https://cache.example/umlbuild`.

A user and password in the address, or in ~/.netrc, are sent as basic authentication (by requests).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from umlbuild.host import fetch
from umlbuild.host.remotes.base import Remote


class Http(Remote):
    """Blobs below a URL."""

    @classmethod
    def at(cls, address: str, environ: Mapping[str, str]) -> Self | None:  # noqa: ARG003
        """http:// or https://"""
        return cls(address.rstrip("/")) if address.startswith(("http://", "https://")) else None

    def read(self, name: str) -> bytes | None:
        """GET; 404 is none."""
        return fetch.read(self._url(name), headers=self._headers("GET", name))

    def load(self, name: str, dest: Path, sha256: str, size: int) -> None:
        """GET into a file."""
        fetch.download(
            self._url(name), dest, sha256=sha256, size=size, attempts=2, headers=self._headers("GET", name)
        )

    def save(self, name: str, source: Path) -> None:
        """PUT."""
        fetch.put(self._url(name), source, headers=self._headers("PUT", name))

    def _url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _headers(self, method: str, name: str) -> dict[str, str]:  # noqa: ARG002
        return {}
