"""From a recipe's questions to a lock: asks apt for what is new, and keeps what an old lock has answered already.

Parts of the lock (kernel, root, tools, filters) whose questions did not change keep their packages untouched. In a
part that did change, versions are kept wherever apt can, as cargo does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from umlbuild.errors import LockError
from umlbuild.host import offline
from umlbuild.host.apt import Apt, suites_of
from umlbuild.host.identity import Identities
from umlbuild.host.mirrors import keyring, mirrors
from umlbuild.host.names import nearest
from umlbuild.lock import PARTS, Lock, Release, Wishes
from umlbuild.plan.wishes import wishes_of
from umlbuild.recipe import Recipe
from umlbuild.specs.packages import LockedDeb

Note = Callable[[str], None]


def resolved(
    recipe: Recipe, *, cache: Path, note: Note, old: Lock | None = None, update: Sequence[str] | None = None
) -> Lock:
    """The lock of a recipe, signatures checked.

    `old` is what to keep as far as possible; `update` names packages of it to take anew ([]: all of them).

    Raises: LockError, FetchError (also when offline), HostError.
    """
    if update and old:
        _check_names(update, old)
    question = _Question(recipe, cache, note, old, update)
    parts = {part: question.answer(part) for part in PARTS}
    kind = recipe.rootfs.bootstrap.kind
    bootstrap = old.bootstrap if old else None
    if question.asked:
        bootstrap = None if kind == "extract" else Identities(cache).of(kind)
    return Lock(
        bootstrap=bootstrap,
        asked=question.wishes,
        release=question.releases(old, parts),
        kernel=parts["kernel"],
        rootfs=parts["rootfs"],
        tools=parts["tools"],
        filters=parts["filters"],
    )


def with_base(pins: Sequence[LockedDeb], alone: Sequence[LockedDeb]) -> tuple[LockedDeb, ...]:
    """The pins of a root, those of its base marked: `alone`, what apt finds without the packages that a recipe names.

    None is marked if the root lacks one of those, since something that is named took its place.
    """
    base = {pin.name: pin.sha256 for pin in alone}
    if not base.items() <= {pin.name: pin.sha256 for pin in pins}.items():
        base = {}
    return tuple(pin.model_copy(update={"base": True if pin.name in base else None}) for pin in pins)


class _Question:
    """What is asked about one recipe."""

    def __init__(
        self, recipe: Recipe, cache: Path, note: Note, old: Lock | None, update: Sequence[str] | None
    ) -> None:
        self.wishes: Wishes = wishes_of(recipe)
        self.asked = False
        """Whether apt was asked anything."""
        self._mirror = recipe.rootfs.mirror
        self._cache = cache
        self._note = note
        self._old = old
        self._update = update

    @cached_property
    def _apt(self) -> Apt:
        offline.refuse("resolving packages")
        self._note(f"resolving the packages of {self.wishes.suite}")
        return Apt(
            cache=self._cache,
            mirrors=mirrors(self._mirror, os.environ, self._cache),
            keyring=keyring(os.environ),
            architecture="amd64",
            components=self.wishes.components,
            note=self._note,
        )

    def answer(self, part: str) -> tuple[LockedDeb, ...]:
        """The packages of one part: the old lock's if nothing else is asked, else apt's."""
        before: tuple[LockedDeb, ...] = getattr(self._old, part) if self._old else ()
        if self._old and self._old.asked.of(part) == self.wishes.of(part) and not self._is_updated(before):
            return before
        self.asked = True
        keep = {} if self._update == [] else {pin.name: pin.version for pin in before if pin.name not in self._names}
        wishes, apt = self.wishes, self._apt
        if part == "kernel":
            return self._kernel()
        if part == "rootfs" and wishes.variant == "none":
            return tuple(apt.pin(wishes.suite, name) for name in wishes.packages)
        if part == "rootfs":
            return self._root(keep)
        names = wishes.tools if part == "tools" else wishes.filters
        return apt.closure(wishes.tools_suite, names, keep) if names else ()

    def _root(self, keep: Mapping[str, str]) -> tuple[LockedDeb, ...]:
        """The packages of a root, those of its base marked. A base that the old lock answers is not asked for again."""
        wishes, apt = self.wishes, self._apt
        base = wishes.base or ()
        old = self._old
        alike = old is not None and (old.asked.suite, old.asked.variant) == (wishes.suite, wishes.variant)
        pins = apt.resolve(wishes.suite, wishes.variant, wishes.packages, keep, alike=alike)
        if set(wishes.packages) == set(base):
            return with_base(pins, pins)
        if old and alike and (old.asked.components, old.asked.base) == (wishes.components, base):
            marked = with_base(pins, [pin for pin in old.rootfs if pin.base])
            if any(pin.base for pin in marked):
                return marked
        versions = {pin.name: pin.version for pin in pins}
        return with_base(pins, apt.resolve(wishes.suite, wishes.variant, base, versions, alike=alike))

    def releases(self, old: Lock | None, parts: dict[str, tuple[LockedDeb, ...]]) -> tuple[Release, ...]:
        """The Release files that the answers stand on: those read now, and those of the parts that were kept.

        Of these also the suites that had nothing to give (updates, say): that was an answer, and a lock that is made
        from nothing names them.
        """
        found = [Release(suite=r.suite, archive=r.archive, date=r.date, sha256=r.sha256) for r in
                 (self._apt.read if self.asked else ())]  # fmt: skip
        if old is not None:
            kept = [part for part in PARTS if parts[part] and parts[part] is getattr(old, part)]
            suites = {suite for part in kept if (suite := self.wishes.suite_of(part))}
            read = {name for suite in suites for _, name in suites_of(suite)}
            found += [release for release in old.release if not self.asked or release.suite in read]
        return tuple(sorted(set(found), key=lambda release: (release.suite, release.date, release.sha256)))

    @property
    def _names(self) -> frozenset[str]:
        return frozenset(self._update or ())

    def _is_updated(self, pins: Sequence[LockedDeb]) -> bool:
        return self._update == [] or any(pin.name in self._names for pin in pins)

    def _kernel(self) -> tuple[LockedDeb, ...]:
        wish = self.wishes.kernel
        if wish is None:
            return ()
        apt = self._apt
        name = wish.package or apt.newest(wish.suite, wish.pattern)
        libraries = (apt.pin(wish.suite, library) for library in wish.libraries or ())
        return (apt.pin(wish.suite, name, wish.version), *libraries)


def _check_names(names: Sequence[str], old: Lock) -> None:
    """Raises: LockError for packages that the lock does not have."""
    known = sorted({pin.name for _, pins in old.parts() for pin in pins})
    unknown = [name for name in names if name not in known]
    if unknown:
        rows = [f"{name}: the lock has no such package{nearest(name, known)}" for name in unknown]
        raise LockError("\n".join(rows), "name packages of the lock; --update alone takes all anew")
