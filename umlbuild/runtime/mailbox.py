"""Hands bytes to a guest as a read-only disk that is plugged in for one command.

The way round a weakness of UML's serial lines: once the terminal's buffer (4096 bytes) has been full, 6.1 never
listens to that line again. A disk has no such limit, and is some ten times as fast.

Source: measured on 6.1 (a line that was throttled once gives no more interrupts); mconsole `config ubd15rd=FILE`
and `remove ubd15` on 6.1 and 7.3 (uml-facts 5.2).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from umlbuild.runtime import mconsole
from umlbuild.runtime.mconsole import MconsoleError

UNIT = 15
DEVICE = "ubdp"
BLOCK = 65536
"""The input starts at a multiple of this, so that the guest's dd can skip to it in large steps."""
_REMOVE_S = 10.0


class Mailbox:
    """The disk of one machine; its file lies in `box`, which has the same name inside the sandbox."""

    def __init__(self, home: Path, mconsole_socket: Path) -> None:
        (home / "box").mkdir(mode=0o700, exist_ok=True)
        self._file = home / "box" / "mail"
        self._socket = mconsole_socket

    @contextlib.contextmanager
    def holding(self, script: bytes, stdin: IO[bytes] | None) -> Iterator[tuple[str, str]]:
        """The disk's name in the guest and the size of the input ("-" for none), while it is plugged in.

        Raises: MconsoleError if it cannot be plugged in, or not be taken away again.
        """
        size = self._write(script, stdin)
        try:
            mconsole.ask(self._socket, f"config ubd{UNIT}rd={self._file}")
            try:
                yield DEVICE, size
            finally:
                self._unplug()
        finally:
            self._file.unlink(missing_ok=True)

    def _write(self, script: bytes, stdin: IO[bytes] | None) -> str:
        with self._file.open("wb") as file:
            file.write(script)
            if stdin is None:
                file.truncate(-(-file.tell() // 512) * 512)
                return "-"
            start = file.seek(-(-len(script) // BLOCK) * BLOCK)
            stdin.seek(0)
            shutil.copyfileobj(stdin, file, 1 << 20)
            end = file.tell()
            file.truncate(max(512, -(-end // 512) * 512))
            return str(end - start)

    def _unplug(self) -> None:
        """7.3 holds on to a disk for a moment after its last reader is gone."""
        deadline = time.monotonic() + _REMOVE_S
        while True:
            try:
                mconsole.ask(self._socket, f"remove ubd{UNIT}")
                return
            except MconsoleError:
                if time.monotonic() > deadline or not self._socket.exists():
                    raise
                time.sleep(0.05)
