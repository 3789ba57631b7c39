"""`umlbuild hub SOCKET`: machines talk to each other, and share one way to the outside, without any privilege."""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from umlbuild.errors import UserError

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

_TURN_S = 0.5


def add_parser(verbs: Verbs) -> None:
    """Mount the verb."""
    hub = verbs.add_parser(
        "hub", help="a switch for several machines, without any privilege",
        description="Listens on SOCKET for machines with transport = { kind = \"bess\", dst = SOCKET } and switches "
        "their frames, until it is ended by a signal. Start it before them. See docs/network-user.md.",
    )  # fmt: skip
    hub.add_argument("socket", type=Path, metavar="SOCKET", help="where to listen; absolute in recipes")
    hub.add_argument("--uplink", action="store_true", help="DHCP, DNS and the outside for all of them (slirp4netns)")
    hub.add_argument("--mtu", type=int, default=1500, help="of the uplink; the machines' own must be the same (1500)")
    hub.add_argument("--timeout", type=float, metavar="S", help="end after S seconds")
    hub.add_argument("--user", default="nobody", help="who may connect when root starts it (nobody)")
    hub.set_defaults(verb=_hub)


def _hub(options: argparse.Namespace) -> int:
    from umlbuild.runtime import uplink
    from umlbuild.runtime.hub import Hub

    if not 576 <= options.mtu <= 16384:
        raise UserError(f"--mtu {options.mtu}: must be 576 to 16384")
    until = time.monotonic() + (options.timeout or float("inf"))
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(Hub(options.socket.absolute(), _owner(options.user)))
        port = hub.add(stack.enter_context(uplink.started(options.mtu, _helper()))) if options.uplink else 0
        print(f"hub: listening at {hub.path}", flush=True)
        while time.monotonic() < until:
            hub.turn(max(0.0, min(_TURN_S, until - time.monotonic())))
            if port and not hub.has(port):
                port = 0
                print("umlbuild: hub: the uplink has ended; the machines still reach each other", file=sys.stderr)
    return 0


def _helper() -> Path:
    """The launcher's helper, from the store or made now."""
    from umlbuild.host import needs
    from umlbuild.host.identity import Identities
    from umlbuild.plan.helper import helper_step
    from umlbuild.project import cache_directory
    from umlbuild.stages.helper import NAME
    from umlbuild.tasks.make import Site, make

    site = Site(cache_directory(Path.cwd()))
    step = helper_step(Identities(site.cache).of)
    if not site.has(step):
        needs.require_for([step.spec], site.cache, print)
        make(step, site, lambda _text: None)
    return site.entry(step) / NAME


def _owner(user: str) -> int | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise UserError(f"--user {user}: there is no such user") from None
