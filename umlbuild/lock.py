"""The lock: what a recipe's open references ("newest", package names) were resolved to. Pure.

`NAME.lock.toml` stands beside the recipe. It holds no host name: packages are named by their path below
the archive's root. `asked` are the questions that it answers, so that a recipe which asks something else is
noticed, and what differs can be named.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import ValidationError

from umlbuild.digest import canonical_json
from umlbuild.errors import LockError
from umlbuild.kinds.kernels.wish import PackageWish
from umlbuild.specs.model import Model
from umlbuild.specs.packages import Archive, DebPin, LockedDeb

FORMAT = 2
PARTS = ("kernel", "rootfs", "tools", "filters")
"""The fields of a lock that hold packages."""


class Tarball(Model):
    """A kernel's sources that are no Debian package."""

    file: str
    """Its name, which tells the version, e.g. "linux-7.3.4.tar.xz"."""
    sha256: str


class Wishes(Model):
    """The questions of one recipe."""

    suite: str
    components: tuple[str, ...]
    variant: str
    """"none" for a root of only the named packages, without what they depend on."""
    packages: tuple[str, ...]
    """Sorted."""
    base: tuple[str, ...] | None = None
    """Those of them that the recipe brings along without naming them (its init's, for example): they are the base's."""
    tools_suite: str
    tools: tuple[str, ...]
    """Packages of the programs that write the images."""
    filters: tuple[str, ...] | None = None
    """Packages of the programs that compile packet filters, from the same suite."""
    kernel: PackageWish | None = None
    """A kernel that comes from a package, and its libraries."""
    tarball: Tarball | None = None
    """A kernel that comes from a tarball; the recipe names its bytes itself."""

    def questions(self) -> dict[str, object]:
        """All of them, as JSON data."""
        return self.model_dump(mode="json", exclude_none=True)

    def of(self, part: str) -> tuple[object, ...]:
        """What was asked for one part of the lock: equal questions keep their answers."""
        questions: dict[str, tuple[object, ...]] = {
            "kernel": (self.kernel,),
            "rootfs": (self.suite, self.components, self.variant, self.packages, self.base),
            "tools": (self.tools_suite, self.tools),
            "filters": (self.tools_suite, self.filters),
        }
        return questions[part]

    def suite_of(self, part: str) -> str | None:
        """The suite that one part of the lock is resolved from; None for a kernel that is no package."""
        if part == "kernel":
            return self.kernel.suite if self.kernel else None
        return self.suite if part == "rootfs" else self.tools_suite


class Release(Model):
    """A signed Release file that was read for the lock."""

    suite: str
    archive: Archive
    date: str
    """Its own, e.g. "2026-11-20T08:15:00Z"."""
    sha256: str
    """Of the signed file (InRelease) as it was read."""


class Lock(Model):
    """Pins for everything that a plan needs from Debian's archives."""

    format: Literal[2] = 2
    bootstrap: str | None = None
    """Version of the bootstrapper that was there at the resolution: told, never compared (step keys do that)."""
    asked: Wishes
    """What was resolved."""
    release: tuple[Release, ...] = ()
    """Sorted by suite and date."""
    kernel: tuple[LockedDeb, ...] = ()
    """The kernel's package, if it comes from one; after it those of the libraries that it runs with."""
    rootfs: tuple[LockedDeb, ...] = ()
    """Every package of the root file system, sorted by name."""
    tools: tuple[LockedDeb, ...] = ()
    """The programs that write the images, with all they depend on."""
    filters: tuple[LockedDeb, ...] = ()
    """The programs that compile packet filters, likewise."""

    def parts(self) -> Iterator[tuple[str, tuple[LockedDeb, ...]]]:
        """(part, its packages)."""
        for part in PARTS:
            yield part, getattr(self, part)

    def pins(self) -> list[DebPin]:
        """Every package once, by its bytes."""
        return list({pin.sha256: pin for _, pins in self.parts() for pin in pins}.values())

    def moments(self) -> dict[str, list[str]]:
        """Archive → the dates of its Release files, each once."""
        found: dict[str, list[str]] = {}
        for release in self.release:
            dates = found.setdefault(release.archive, [])
            if release.date not in dates:
                dates.append(release.date)
        return found


def path_of(recipe: Path) -> Path:
    """Where a recipe's lock is: router.toml → router.lock.toml."""
    return recipe.with_name(f"{recipe.name.removesuffix('.toml')}.lock.toml")


def parse(text: str, file: Path, recipe: str) -> Lock:
    """A Lock of its text; `recipe` is its recipe's name, for the hint. Raises: LockError."""
    again = f"umlbuild lock {recipe}"
    try:
        return _valid(text)
    except _OtherFormat as error:
        raise LockError(f"{file}: is a lock of format {error}, this umlbuild has {FORMAT}", again) from error
    except tomllib.TOMLDecodeError as error:
        raise LockError(f"{file}: is no lock: {error}", f"restore it, or write it anew: {again}") from error
    except (ValidationError, TypeError) as error:
        where = ""
        if isinstance(error, ValidationError):
            row = error.errors()[0]
            where = f" ({'.'.join(str(word) for word in row['loc'])}: {row['msg']})"
        raise LockError(
            f"{file}: is no lock of this umlbuild{where}", f"restore it, or write it anew: {again}"
        ) from error


class _OtherFormat(Exception):
    """Its words are the format."""


@lru_cache(maxsize=4)
def _valid(text: str) -> Lock:
    """Recipes that share their packages have equal locks, and reading one takes 5 ms.

    Raises: TOMLDecodeError, ValidationError, TypeError, _OtherFormat; those are not remembered.
    """
    data = tomllib.loads(text)
    if (found := data.get("format", 1)) != FORMAT:
        raise _OtherFormat(found)
    return Lock.model_validate_json(canonical_json(data))


def text_of(lock: Lock) -> str:
    """The one spelling of a lock: stable order, one table a package."""
    head = "# Written by umlbuild: what the recipe's names stood for. Made to be committed and reviewed.\n"
    data = lock.model_dump(mode="json", exclude_none=True)
    return head + tomli_w.dumps({key: value for key, value in data.items() if value != []})


def disagreements(asked: Wishes, wanted: Wishes) -> list[str]:
    """What a recipe wants (`wanted`) that its lock was not asked, one line each; [] if they agree."""
    return list(_disagreements(asked, wanted))


def changes(old: Lock | None, new: Lock) -> list[str]:
    """The changelog between two locks, a line for each package: `part: name old -> new`, `+`, `-`; [] without any."""
    return [line for part, pins in new.parts() for line in _changes(part, getattr(old, part) if old else (), pins)]


def _disagreements(asked: Wishes, wanted: Wishes) -> Iterator[str]:
    for name, key in (("suite", "rootfs.suite"), ("variant", "rootfs.variant"), ("tools_suite", "suite of the tools")):
        before, now = getattr(asked, name), getattr(wanted, name)
        if before != now:
            yield f"{key}: the recipe asks for {now}, the lock answers {before}"
    lists = (("components", "rootfs.components"), ("packages", "rootfs.packages"), ("base", "packages of the base"),
             ("tools", "image tools"), ("filters", "filter tools"))  # fmt: skip
    for name, key in lists:
        before, now = set(getattr(asked, name) or ()), set(getattr(wanted, name) or ())
        if more := now - before:
            yield f"{key}: the lock does not answer {', '.join(sorted(more))}"
        if less := before - now:
            yield f"{key}: the recipe does not ask for {', '.join(sorted(less))}"
    for name in ("kernel", "tarball"):
        before, now = getattr(asked, name), getattr(wanted, name)
        if before != now:
            yield f"kernel.source: the recipe asks for {_source(now)}, the lock answers {_source(before)}"


def _source(wish: PackageWish | Tarball | None) -> str:
    if wish is None:
        return "none"
    if isinstance(wish, Tarball):
        return f"{wish.file} ({wish.sha256[:12]})"
    version = f" {wish.version}" if wish.version else ""
    return f"{wish.package or wish.pattern}{version} of {wish.suite}"


def _changes(part: str, old: tuple[LockedDeb, ...], new: tuple[LockedDeb, ...]) -> Iterator[str]:
    before, now = _by_name(old), _by_name(new)
    for name in sorted({*before, *now}):
        was, is_ = before.get(name), now.get(name)
        if was is None and is_ is not None:
            yield f"{part}: + {name} {is_.version}"
        elif is_ is None and was is not None:
            yield f"{part}: - {name} {was.version}"
        elif was is not None and is_ is not None and was.version != is_.version:
            yield f"{part}: {name} {was.version} -> {is_.version}"
        elif was is not None and is_ is not None and was.sha256 != is_.sha256:
            yield f"{part}: {name} {is_.version}: other bytes than before ({was.sha256[:12]} -> {is_.sha256[:12]})"


def _by_name(pins: tuple[LockedDeb, ...]) -> Mapping[str, LockedDeb]:
    return {pin.name: pin for pin in pins}
