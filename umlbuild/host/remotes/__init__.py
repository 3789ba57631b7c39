"""Kinds of places that hold entries for other machines: one file each."""

from __future__ import annotations

from collections.abc import Mapping

from umlbuild.errors import HostError
from umlbuild.host.remotes.base import Remote
from umlbuild.host.remotes.directory import Directory
from umlbuild.host.remotes.http import Http
from umlbuild.host.remotes.oci import Oci
from umlbuild.host.remotes.s3 import S3

KINDS: tuple[type[Remote], ...] = (Directory, Http, S3, Oci)
"""In the order in which they are asked whether an address is theirs."""


def remote_of(address: str, environ: Mapping[str, str]) -> Remote:
    """The remote at an address. Raises: HostError (no such kind, something is not set)."""
    for kind in KINDS:
        if (remote := kind.at(address, environ)) is not None:
            return remote
    raise HostError(
        f"UMLBUILD_REMOTE: {address!r} is no remote store",
        "name an absolute directory, https://HOST/PATH, s3://BUCKET/PREFIX or oci://HOST/REPOSITORY",
    )
