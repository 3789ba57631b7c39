"""`source = { kind = "tarball" }`: a kernel release by URL and sha256.

The sha256 is the identity: the same tarball from another mirror is the same kernel, and other bytes are
refused.

    [kernel]
    source = { kind = "tarball", url = "https://mirror.example/linux-7.3.4.tar.xz", sha256 = "…" }

Source: kernel.org publishes .tar.xz and .tar.gz with sha256sums.asc for each release.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator
from typing_extensions import override

from umlbuild.kinds.kernels.base import KernelModel, upstream_of
from umlbuild.specs.kernel import TarballSource
from umlbuild.specs.packages import DebPin

_COMPRESSIONS: dict[str, Literal["xz", "gz", "zst"]] = {
    ".tar.xz": "xz", ".tar.gz": "gz", ".tgz": "gz", ".tar.zst": "zst",
}  # fmt: skip


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{value!r} is not an http or https URL")
    if not parts.path.endswith(tuple(_COMPRESSIONS)):
        raise ValueError(f"{value!r} does not end in {', '.join(_COMPRESSIONS)}")
    return value


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{value!r} is not a sha256 (64 digits 0-9, a-f)")
    return value


class Tarball(KernelModel):
    """A kernel source tarball: .tar.xz, .tar.gz or .tar.zst."""

    kind: Literal["tarball"] = "tarball"
    url: Annotated[str, AfterValidator(_url)]
    """Where to fetch it; the name in it tells the compression."""
    sha256: Annotated[str, AfterValidator(_sha256)]
    """Of the tarball, as sha256sum prints it."""

    @override
    def wanted(self, root_suite: str) -> None:
        """No package."""

    @override
    def source(self, pin: DebPin | None, digest: str | None) -> TarballSource:
        path = urlsplit(self.url).path
        compression = next(kind for suffix, kind in _COMPRESSIONS.items() if path.endswith(suffix))
        return TarballSource(url=self.url, sha256=self.sha256, compression=compression)

    @override
    def version_of(self, pin: DebPin | None = None) -> tuple[int, int] | None:
        return upstream_of(urlsplit(self.url).path.rsplit("/", 1)[-1])
