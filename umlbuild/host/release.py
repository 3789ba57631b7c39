"""A release: `dist/NAME-VERSION/` with the bundle's archive, its recipe, lock and manifest, sums, and a signature.

It is made beside and exchanged in one rename (see `publish`). A release that stands there is kept: the same version
with other bytes is refused unless it is forced.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import StepFailed, UserError
from umlbuild.host import archive, publish, signing, sparse
from umlbuild.host.process import EPOCH
from umlbuild.host.store import Store

SUMS = publish.SUMS
DOCUMENTS = ("manifest.toml", "recipe.lock.toml", "recipe.toml")
"""Files of the bundle that stand beside its archive, too."""

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}")
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9.+~_-]*)")


@dataclass(frozen=True)
class Wish:
    """What a release is to be."""

    name: str
    version: str
    key: Path | None = None
    """Signs it, if given."""
    force: bool = False
    """Whether it may replace another release of this version."""

    @property
    def title(self) -> str:
        """Name of its directory, and of the archive's."""
        return f"{self.name}-{self.version}"


def check_version(version: str) -> None:
    """Raises: UserError."""
    if not _VERSION.fullmatch(version):
        raise UserError(
            f"version={version}: is no version: 1 to 64 of letters, digits and . + ~ _ -, a letter or digit first",
            "version=1.2",
        )


def make(bundle: Path, dist: Path, wish: Wish, store: Store, note: Callable[[str], None]) -> bool:
    """Make `dist` the release of a bundle; False if it is that already.

    Raises: StepFailed (another release of this version is there, a key that does not sign), ToolFailed, OSError.
    """
    with store.working(f"release-{wish.title}") as work:
        made = work / "release"
        made.mkdir(mode=0o755)
        made.chmod(0o755)
        if _is_of(dist, bundle):
            if wish.key is None or _signed(dist, wish.key):
                return False
            others = [path.name for path in dist.glob(f"{SUMS}.*")]
            for name in [SUMS, *others, *sums_of(dist)]:
                sparse.link_or_copy(dist / name, made / name)
        else:
            note("packing")
            archive.pack(bundle, wish.title, made / f"{wish.title}.tar.zst", work)
            for name in DOCUMENTS:
                (made / name).write_bytes((bundle / name).read_bytes())
            names = sorted(path.name for path in made.iterdir())
            (made / SUMS).write_text("".join(f"{digest.of_file(made / name)}  {name}\n" for name in names))
        if wish.key is not None:
            note("signing")
            signing.sign(made / SUMS, wish.key, wish.title)
        for path in made.iterdir():
            path.chmod(0o644)
            os.utime(path, (EPOCH, EPOCH))

        def allow() -> None:
            if dist.exists() and not wish.force and _other(made, dist):
                raise StepFailed(
                    f"{dist}: another release of version {wish.version} is there; it was left as it is",
                    "give another version=…, or replace it: force=1",
                )

        return publish.publish(made, dist, allow=allow)


def sums_of(release: Path) -> dict[str, str]:
    """File → sha256, as the release's SHA256SUMS says. Raises: StepFailed."""
    try:
        lines = (release / SUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StepFailed(f"{release / SUMS}: cannot be read: {error}") from error
    found = [_LINE.fullmatch(line) for line in lines]
    if not lines or None in found:
        raise StepFailed(f"{release / SUMS}: is no list of sums")
    return {match[2]: match[1] for match in found if match}


def problems_of(release: Path) -> list[str]:
    """What of a release is not as its SHA256SUMS says; [] if all is well. Raises: StepFailed (no sums)."""
    sums = sums_of(release)
    known = {*sums, SUMS, *(SUMS + suffix for suffix in signing.SUFFIXES.values())}
    problems = [f"{name}: is not in {SUMS}" for name in sorted(set(os.listdir(release)) - known)]
    for name, sha256 in sorted(sums.items()):
        path = release / name
        if path.is_symlink() or not path.is_file():
            problems.append(f"{name}: is not there")
        elif digest.of_file(path) != sha256:
            problems.append(f"{name}: its sha256 is not the one in {SUMS}")
    return problems


def archive_of(release: Path) -> Path:
    """The archive of a release. Raises: StepFailed if there is not exactly one."""
    names = [name for name in sums_of(release) if name.endswith(".tar.zst")]
    if len(names) != 1:
        raise StepFailed(f"{release / SUMS}: names {len(names)} archives instead of one")
    return release / names[0]


def _is_of(dist: Path, bundle: Path) -> bool:
    """Whether a whole release of this very bundle stands there, under this name."""
    try:
        same = (dist / "manifest.toml").read_bytes() == (bundle / "manifest.toml").read_bytes()
        return same and not problems_of(dist) and archive_of(dist).name == f"{dist.name}.tar.zst"
    except (OSError, StepFailed):
        return False


def _signed(dist: Path, key: Path) -> bool:
    return (dist / (SUMS + signing.SUFFIXES[signing.kind_of(key)])).is_file()


def _other(made: Path, dist: Path) -> bool:
    try:
        return (made / SUMS).read_bytes() != (dist / SUMS).read_bytes() or bool(problems_of(dist))
    except (OSError, StepFailed):
        return True
