"""Hands bytes to a guest as a read-only disk that is plugged in for one command.

The way round a weakness of UML's serial lines: once the terminal's buffer (4096 bytes) has been full, 6.1 never
listens to that line again. A disk has no such limit, and is some ten times as fast.

Source: measured on 6.1 (a line that was throttled once gives no more interrupts); mconsole `config ubd15rd=FILE`
and `remove ubd15` on 6.1 and 7.3 (uml-facts 5.2).

Where the sandbox lets UML have no mconsole, the launcher has made the disk's file, sparse and as large as it may
become, and UML has had the disk from its start. Linux forgets what it has read of a disk when nobody has it open.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from umlbuild.runtime import mconsole
from umlbuild.runtime.failures import MachineError
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

    def is_built_in(self) -> bool:
        """Whether the machine has had the disk from its start, which one without mconsole has."""
        return self._file.exists()

    @contextlib.contextmanager
    def holding(self, script: bytes, stdin: IO[bytes] | None) -> Iterator[tuple[str, str]]:
        """The disk's name in the guest and the size of the input ("-" for none), while it is plugged in.

        Raises: MconsoleError if it cannot be plugged in, or not be taken away again; MachineError if a built-in disk
        is too small.
        """
        if self.is_built_in():
            with self._filled(script, stdin) as size:
                yield DEVICE, size
            return
        size = self._write(script, stdin)
        try:
            mconsole.ask(self._socket, f"config ubd{UNIT}rd={self._file}")
            try:
                yield DEVICE, size
            finally:
                self._unplug()
        finally:
            self._file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _filled(self, script: bytes, stdin: IO[bytes] | None) -> Iterator[str]:
        """The size of the input, while the built-in disk holds it; afterwards its file takes no space again."""
        room = self._file.stat().st_size
        need = len(script) + BLOCK + (stdin.seek(0, os.SEEK_END) if stdin is not None else 0)
        if need > room:
            raise MachineError(
                f"{need >> 20} MiB are too much for a machine without mconsole: {room >> 20} MiB fit",
                "put it on a data disk ([[disk]]), or into a share",
            )
        try:
            with self._file.open("r+b") as file:
                size = _put(file, script, stdin)
            yield size
        finally:
            os.truncate(self._file, 0)
            os.truncate(self._file, room)

    def _write(self, script: bytes, stdin: IO[bytes] | None) -> str:
        with self._file.open("wb") as file:
            size = _put(file, script, stdin)
            file.truncate(max(512, -(-file.tell() // 512) * 512))
            return size

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


def _put(file: IO[bytes], script: bytes, stdin: IO[bytes] | None) -> str:
    """Write both; returns the size of the input, "-" for none."""
    file.write(script)
    if stdin is None:
        return "-"
    start = file.seek(-(-len(script) // BLOCK) * BLOCK)
    stdin.seek(0)
    shutil.copyfileobj(stdin, file, 1 << 20)
    return str(file.tell() - start)
