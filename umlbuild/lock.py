"""The lock: what a recipe's open references ("newest", package names) were resolved to. Pure.

`NAME.lock.toml` stands beside the recipe. It holds no host name: packages are named by their path below
the archive's root. `asked` is the digest of the questions, so a recipe that asks something else than
its lock answers is noticed.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import ValidationError

from umlbuild.digest import canonical_json
from umlbuild.errors import LockError
from umlbuild.specs.model import Model
from umlbuild.specs.packages import DebPin


class Lock(Model):
    """Pins for everything that a plan needs from Debian's archives."""

    format: Literal[1] = 1
    asked: str
    """Digest of the wishes that were resolved."""
    kernel: tuple[DebPin, ...] = ()
    """The kernel's package, if it comes from one; after it those of the libraries that it runs with."""
    rootfs: tuple[DebPin, ...] = ()
    """Every package of the root file system, sorted by name."""
    tools: tuple[DebPin, ...] = ()
    """The programs that write the images, with all they depend on."""
    filters: tuple[DebPin, ...] = ()
    """The programs that compile packet filters, likewise."""


def path_of(recipe: Path) -> Path:
    """Where a recipe's lock is: router.toml → router.lock.toml."""
    return recipe.with_name(f"{recipe.name.removesuffix('.toml')}.lock.toml")


def parse(text: str, file: str) -> Lock:
    """A Lock of its text. Raises: LockError."""
    try:
        return Lock.model_validate_json(canonical_json(tomllib.loads(text)))
    except (tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        raise LockError(f"{file}: is no lock of this version of umlbuild", f"remove {file}") from error


def text_of(lock: Lock) -> str:
    """The one spelling of a lock: stable order, one table a package."""
    head = "# Written by umlbuild: what the recipe's names stood for. Made to be committed and reviewed.\n"
    return head + tomli_w.dumps(lock.model_dump(mode="json"))
