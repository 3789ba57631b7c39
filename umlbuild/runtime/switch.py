"""A learning switch, as far as it decides: which ports a frame goes to. Pure; ports are numbers.

Like a real one it believes what frames say: a guest can claim the MAC address of another.

Source: IEEE 802.1D for learning and ageing (300 s).
"""

from __future__ import annotations

from collections.abc import Collection

AGE_S = 300.0
MOST = 1024
"""Addresses that are remembered; a guest can make up as many as it likes."""
_HEADER = 14


class Switch:
    """Remembers behind which port a MAC address is."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[int, float]] = {}

    def targets(self, frame: bytes, source: int, ports: Collection[int], now: float) -> list[int]:
        """The ports that get this frame, which came in at `source` at time `now` (seconds, monotonic)."""
        if len(frame) < _HEADER:
            return []
        self._learn(frame[6:12], source, now)
        to = frame[:6]
        if not _is_group(to):
            port, seen = self._seen.get(to, (-1, 0.0))
            if port in ports and now - seen < AGE_S:
                return [port] if port != source else []
        return [port for port in ports if port != source]

    def forget(self, port: int) -> None:
        """Nobody is behind this port any more."""
        self._seen = {mac: row for mac, row in self._seen.items() if row[0] != port}

    def _learn(self, mac: bytes, port: int, now: float) -> None:
        if _is_group(mac):
            return
        self._seen.pop(mac, None)
        while len(self._seen) >= MOST:
            del self._seen[next(iter(self._seen))]  # the one that was silent for the longest time
        self._seen[mac] = port, now


def _is_group(mac: bytes) -> bool:
    return bool(mac[0] & 1)
