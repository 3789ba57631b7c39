"""Which Debian mirrors this machine uses: base URLs by archive name, never written into any file of ours.

Source: apt-get(8) indextargets, which speaks for sources.list and deb822 files alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from umlbuild.errors import HostError, ToolFailed
from umlbuild.host import process
from umlbuild.specs.packages import Archive

Mirrors = Mapping[Archive, str]
"""Archive name → base URL, ending in "/"; or several with a space between, in the order in which they are asked for
packages (apt resolves with the first). "security" may be absent."""

MIRROR = "UMLBUILD_MIRROR"
SECURITY_MIRROR = "UMLBUILD_SECURITY_MIRROR"
SNAPSHOT = "UMLBUILD_SNAPSHOT"
KEYRING = "UMLBUILD_KEYRING"

_ARCHIVES: dict[Archive, str] = {"debian": "debian", "security": "debian-security"}
"""Archive name → its directory in a snapshot archive."""
_SNAPSHOT_LATER = timedelta(hours=12)
_DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TARGETS = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ORIGIN)", "Created-By: Packages")


def mirrors(explicit: str | None, env: Mapping[str, str], cache: Path | None = None) -> Mirrors:
    """The mirrors to use: the recipe's, else UMLBUILD_MIRROR, else those of the host's apt sources.

    Each may name several, with spaces between: the further ones are asked for what the first has not.
    The security archive of an explicit mirror is UMLBUILD_SECURITY_MIRROR ("none" for none), else the host's,
    else the mirror's sibling `debian-security`, which is where mirror operators put it.
    `cache` is where apt may keep what it reads of the host's lists.

    Raises: HostError when there is none.
    """
    debian = explicit or env.get(MIRROR)
    security = env.get(SECURITY_MIRROR)
    found: dict[Archive, str] = {}
    if not (debian and security):
        found.update(_of_host(cache))
    if debian:
        found["debian"] = _directories(debian)
        siblings = [url.removesuffix("/") for url in urls_of(found["debian"]) if url.endswith("/debian/")]
        if "security" not in found and siblings:
            found["security"] = " ".join(f"{sibling}-security/" for sibling in siblings)
    if security == "none":
        found.pop("security", None)
    elif security:
        found["security"] = _directories(security)
    if "debian" not in found:
        raise HostError(
            "looking for a Debian mirror: the apt sources of this machine name none",
            f"set {MIRROR}=https://mirror.example/debian (or `mirror` in the recipe)",
        )
    return found


def urls_of(value: str) -> list[str]:
    """The base URLs in one value of Mirrors, in order."""
    return value.split()


def with_snapshots(found: Mapping[str, str], moments: Mapping[str, Sequence[str]], env: Mapping[str, str]) -> Mirrors:
    """Mirrors, after them the snapshot archive of UMLBUILD_SNAPSHOT at some moments of each archive.

    `moments`: archive name → dates like "2026-11-20T08:15:00Z", of the Release files that were read.

    Source: the layout of the archive's own snapshots, BASE/debian/20261120T081500Z/pool/…: a moment stands for the
    newest snapshot that is not after it. A snapshot is taken some hours after its Release, and a pool keeps what was
    replaced for a day and more: so half a day later is asked first, then the date itself.
    """
    base = env.get(SNAPSHOT)
    if not base:
        return {archive: found[archive] for archive in _ARCHIVES if archive in found}
    result: dict[Archive, str] = {}
    for archive, directory in _ARCHIVES.items():
        dates = [datetime.fromisoformat(text) for text in moments.get(archive, ())]
        times = sorted(date + _SNAPSHOT_LATER for date in dates) + sorted(dates)
        more = [f"{_directory(base)}{directory}/{time:%Y%m%dT%H%M%SZ}/" for time in times]
        if urls := [*urls_of(found.get(archive, "")), *more]:
            result[archive] = " ".join(urls)
    return result


def keyring(env: Mapping[str, str]) -> Path:
    """The keyring that repositories must be signed with. Raises: HostError if it is not there."""
    path = Path(env.get(KEYRING) or _DEBIAN_KEYRING)
    if not path.is_file():
        raise HostError(
            f"{path}: the keyring that checks Debian's signatures is missing",
            f"sudo apt-get install debian-archive-keyring (or set {KEYRING} to a keyring file)",
        )
    return path.absolute()


def _of_host(cache: Path | None) -> dict[Archive, str]:
    """The mirrors in the host's apt sources; {} on a machine without apt or without Debian sources.

    An origin is in apt's cache of all packages, which takes it half a second to make. Images of containers switch that
    file off, and only root writes it: so it may be in our cache. apt looks whether it is still true.
    """
    if process.find("apt-get") is None:
        return {}
    if cache is not None:
        directory = cache.absolute() / "apt" / "host-lists"
        files = (f"Dir::Cache={directory}", "Dir::Cache::pkgcache=pkgcache.bin", "Dir::Cache::srcpkgcache=")
        with contextlib.suppress(OSError, ToolFailed):  # a disk that is full: then without
            directory.mkdir(parents=True, exist_ok=True)
            return parse_targets(process.output([*_TARGETS, *(f"--option={file}" for file in files)]))
    try:
        return parse_targets(process.output(_TARGETS))
    except ToolFailed:
        return {}


def parse_targets(text: str) -> dict[Archive, str]:
    """Mirrors from lines `URI RELEASE ORIGIN`: the first main suite, and the first one that is -security."""
    found: dict[Archive, str] = {}
    for line in text.splitlines():
        uri, release, *origin = line.split(" ", 2)
        # Without lists (never updated) the origin is unknown: then it is left unexpanded, and not held
        # against the line unless another repository is known to be Debian's.
        if origin and not origin[0].startswith("$") and origin[0] not in ("Debian", ""):
            continue
        if not uri.startswith(("http://", "https://", "file:")) or not _is_debian(uri, origin):
            continue
        found.setdefault("security" if release.endswith("-security") else "debian", _directory(uri))
    return found


def _is_debian(uri: str, origin: list[str]) -> bool:
    known = bool(origin) and origin[0] == "Debian"
    return known or uri.rstrip("/").rsplit("/", 1)[-1] in ("debian", "debian-security")


def _directories(urls: str) -> str:
    return " ".join(_directory(url) for url in urls_of(urls))


def _directory(url: str) -> str:
    return url.strip().rstrip("/") + "/"
