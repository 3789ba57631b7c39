"""Descriptors for machines whose transport is `fd`: each gets the end of a cable that leads nowhere."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from typing import Any

_LOCK = threading.Lock()


def cables(recipe: Mapping[str, Any]) -> tuple[int, ...]:
    """The numbers that the recipe's interfaces name. They stay open for as long as this process lives, since several
    lanes of attempts share them."""
    wanted = tuple(net["transport"]["fd"] for net in recipe.get("network", []) if net["transport"]["kind"] == "fd")
    with _LOCK:
        for number in wanted:
            if not os.path.exists(f"/proc/self/fd/{number}"):
                ours, guests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with guests:
                    os.dup2(guests.fileno(), number)
                ours.detach()
    return wanted
