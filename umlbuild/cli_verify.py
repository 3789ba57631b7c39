"""`umlbuild verify PATH`: a release or a bundle against its signature, its sums, and its recipe built again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from umlbuild.errors import UserError

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(verbs: Verbs) -> None:
    """Mount the verb."""
    verify = verbs.add_parser(
        "verify", help="check a release or a bundle: signature, sums, and whether it can be built again",
        description="PATH is a directory that `doit release` made, or a bundle. Exit status: 0 all is well, 1 it is "
        "not, 2 it cannot be checked. See docs/release.md.",
    )  # fmt: skip
    verify.add_argument("path", type=Path, metavar="PATH")
    verify.add_argument(
        "--key", type=Path, metavar="FILE",
        help="who must have signed it: an ALLOWED_SIGNERS file or .pub of ssh, or minisign's .pub",
    )  # fmt: skip
    verify.add_argument("--rebuild", action="store_true", help="build it again from its recipe and lock, and compare")
    verify.add_argument(
        "--recipe", type=Path, metavar="FILE",
        help="with --rebuild: the original recipe, for secrets and directories that no bundle holds",
    )  # fmt: skip
    verify.set_defaults(verb=_verify)


def _verify(options: argparse.Namespace) -> int:
    from umlbuild import verify

    if options.recipe is not None and not options.rebuild:
        raise UserError("--recipe is for --rebuild only")
    with verify.checked(options.path, options.key, _say) as bundle:
        if options.rebuild:
            from umlbuild import rebuild
            from umlbuild.project import cache_directory

            rebuild.compare(bundle, options.recipe, cache_directory(Path.cwd()), _say)
            _say(f"{options.path}: built again, every byte is the same")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)
