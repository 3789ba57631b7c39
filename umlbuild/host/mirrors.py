"""Which Debian mirrors this machine uses: base URLs by archive name, never written into any file of ours.

Source: apt-get(8) indextargets, which speaks for sources.list and deb822 files alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from umlbuild.errors import HostError, ToolFailed
from umlbuild.host import process
from umlbuild.specs.packages import Archive

Mirrors = Mapping[Archive, str]
"""Archive name → base URL, ending in "/". "security" may be absent."""

MIRROR = "UMLBUILD_MIRROR"
SECURITY_MIRROR = "UMLBUILD_SECURITY_MIRROR"
KEYRING = "UMLBUILD_KEYRING"

_DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TARGETS = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ORIGIN)", "Created-By: Packages")


def mirrors(explicit: str | None, env: Mapping[str, str]) -> Mirrors:
    """The mirrors to use: the recipe's, else UMLBUILD_MIRROR, else those of the host's apt sources.

    The security archive of an explicit mirror is UMLBUILD_SECURITY_MIRROR ("none" for none), else the host's,
    else the mirror's sibling `debian-security`, which is where mirror operators put it.

    Raises: HostError when there is none.
    """
    debian = explicit or env.get(MIRROR)
    security = env.get(SECURITY_MIRROR)
    found: dict[Archive, str] = {}
    if not (debian and security):
        found.update(_of_host())
    if debian:
        found["debian"] = _directory(debian)
        sibling = found["debian"].rstrip("/")
        if "security" not in found and sibling.endswith("/debian"):
            found["security"] = f"{sibling}-security/"
    if security == "none":
        found.pop("security", None)
    elif security:
        found["security"] = _directory(security)
    if "debian" not in found:
        raise HostError(
            "looking for a Debian mirror: the apt sources of this machine name none",
            f"set {MIRROR}=https://mirror.example/debian (or `mirror` in the recipe)",
        )
    return found


def keyring(env: Mapping[str, str]) -> Path:
    """The keyring that repositories must be signed with. Raises: HostError if it is not there."""
    path = Path(env.get(KEYRING) or _DEBIAN_KEYRING)
    if not path.is_file():
        raise HostError(
            f"{path}: the keyring that checks Debian's signatures is missing",
            f"sudo apt-get install debian-archive-keyring (or set {KEYRING} to a keyring file)",
        )
    return path.absolute()


def _of_host() -> dict[Archive, str]:
    """The mirrors in the host's apt sources; {} on a machine without apt or without Debian sources."""
    if process.find("apt-get") is None:
        return {}
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


def _directory(url: str) -> str:
    return url.strip().rstrip("/") + "/"
