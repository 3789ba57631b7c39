"""Whether this build may use a network: `--offline`, `offline=1` or UMLBUILD_OFFLINE=1 say that it may not.

One environment variable carries it, so that threads, forked workers and spawned ones agree.
"""

from __future__ import annotations

import os

from umlbuild.errors import FetchError

VARIABLE = "UMLBUILD_OFFLINE"
HINT = "build once with a network, use a directory made by `umlbuild vendor`, or leave --offline out"


def is_offline() -> bool:
    """Whether nothing may be fetched; "", "0" and "no" mean that it may."""
    return os.environ.get(VARIABLE, "") not in ("", "0", "no")


def refuse(what: str) -> None:
    """Before `what` ("fetching bash 5.2") uses a network. Raises: FetchError when offline."""
    if is_offline():
        raise FetchError(f"{what}: needs the network, and this build is offline", HINT)
