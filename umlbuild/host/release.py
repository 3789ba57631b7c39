"""A release: `dist/NAME-VERSION/` with the bundle's archive, its recipe, lock and manifest, sums, and a signature.

It is made beside and exchanged in one rename (see `publish`). A release that stands there is kept: the same version
with other bytes, or signed by another key of that kind, is refused unless it is forced.
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

    What is signed is packed here, of the bundle: one that stands there fits its own sums, and these may be anybody's.

    Raises: StepFailed (another release of this version is there, a key that does not sign), UserError (it is no key),
    ToolFailed, OSError.
    """

    def allow() -> None:
        if not wish.force and (_is_other(dist, bundle, wish.key) or _differs(made, dist)):
            raise StepFailed(
                f"{dist}: another release of version {wish.version} is there; it was left as it is",
                "give another version=…, or replace it: force=1",
            )

    with store.working(f"release-{wish.title}") as work:
        made = work / "release"
        made.mkdir(mode=0o755)
        made.chmod(0o755)
        if _is_of(dist, bundle) and (wish.key is None or signing.is_by(dist / SUMS, wish.key)):
            return False
        allow()  # before minutes of packing, too
        note("packing")
        archive.pack(bundle, wish.title, made / f"{wish.title}.tar.zst", work)
        for name in DOCUMENTS:
            (made / name).write_bytes((bundle / name).read_bytes())
        names = sorted(path.name for path in made.iterdir())
        (made / SUMS).write_text("".join(f"{digest.of_file(made / name)}  {name}\n" for name in names))
        if (dist / SUMS).is_file() and not _differs(made, dist):  # the same, signed in other ways, too
            for path in dist.glob(f"{SUMS}.*"):
                sparse.copy(path, made / path.name)
        if wish.key is not None:
            note("signing")
            signing.sign(made / SUMS, wish.key, wish.title)
        for path in made.iterdir():
            path.chmod(0o644)
            os.utime(path, (EPOCH, EPOCH))
        return publish.publish(made, dist, same=lambda: _is_same(made, dist), allow=allow)


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


def _is_other(dist: Path, bundle: Path, key: Path | None) -> bool:
    """Whether another release stands there: of other bytes, or signed by another key of this kind."""
    if dist.is_symlink() or not ((dist / SUMS).is_file() and (dist / "manifest.toml").is_file()):
        return False  # nothing, or what `publish` has words for
    if not _is_of(dist, bundle):
        return True
    if key is None or not (dist / (SUMS + signing.SUFFIXES[signing.kind_of(key)])).exists():
        return False
    return not signing.is_by(dist / SUMS, key)


def _differs(made: Path, dist: Path) -> bool:
    """Whether a release stands there that has other sums than the one that was made; False before it was."""
    if not ((made / SUMS).is_file() and (dist / SUMS).is_file()):
        return False
    return (made / SUMS).read_bytes() != (dist / SUMS).read_bytes()


def _is_same(made: Path, dist: Path) -> bool:
    """Whether both have the same bytes. Signatures by two keys have one size, and all files of releases one time."""
    names = sorted(os.listdir(made))
    try:
        if sorted(os.listdir(dist)) != names or dist.is_symlink() or problems_of(dist):
            return False
        return all((made / n).read_bytes() == (dist / n).read_bytes() for n in names if n.startswith(SUMS))
    except (OSError, StepFailed):
        return False
