"""The end of what a machine said, in bounded memory: a guest that floods its console costs CPU time, no space.

A thread drains the pipes for as long as anybody holds their other end, so that UML never waits for a reader.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable

TAIL_BYTES = 64 * 1024
_LINES = 20


class Console:
    """Reads some descriptors to their end (and closes them); keeps the last `TAIL_BYTES` of all together."""

    def __init__(self, fds: list[int], on_output: Callable[[bytes], None] | None = None) -> None:
        self._fds = fds
        self._on_output = on_output
        self._lock = threading.Lock()
        self._tail = bytearray()
        self.total = 0
        """Bytes seen so far."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="console", daemon=True)
        self._thread.start()

    def tail(self) -> bytes:
        """The last bytes."""
        with self._lock:
            return bytes(self._tail)

    def lines(self, count: int = _LINES) -> list[str]:
        """The last lines, without control characters that would upset a terminal."""
        text = self.tail().decode(errors="replace").replace("\r\n", "\n")
        clean = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
        return clean.splitlines()[-count:]

    def finish(self, timeout_s: float) -> None:
        """Wait for the end of the streams; after `timeout_s` give up on them."""
        self._thread.join(timeout_s)
        self._stop.set()
        self._thread.join(2)

    def _drain(self) -> None:
        with selectors.DefaultSelector() as selector:
            for fd in self._fds:
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map() and not self._stop.is_set():
                for key, _ in selector.select(0.5):
                    block = os.read(key.fd, 65536)
                    if block:
                        self._keep(block)
                    else:
                        selector.unregister(key.fd)
        for fd in self._fds:
            os.close(fd)

    def _keep(self, block: bytes) -> None:
        with self._lock:
            self.total += len(block)
            self._tail += block
            del self._tail[:-TAIL_BYTES]
        if self._on_output is not None:
            self._on_output(block)
