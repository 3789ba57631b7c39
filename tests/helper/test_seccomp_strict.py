"""The filter of system calls, really installed: what a strict one takes away, and what both leave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from umlbuild.kinds.sandboxes import seccomp

CALLS = Path(__file__).with_name("calls.py")
EPERM, EBADF, EAFNOSUPPORT = 1, 9, 97
UNIX, INET, STREAM, DGRAM, SEQPACKET, CLOEXEC, NONBLOCK = 1, 2, 1, 2, 5, 0o2000000, 0o4000
FILE, NEW = "{file}", "{new}"
HIGH = 1 << 32

ROWS: dict[str, tuple[list[int | str], int | None, int]] = {
    # call: number and arguments, its error with the usual filter (None: of no interest), with a strict one
    "chmod": ([90, FILE, 0o600], 0, EPERM),
    "fchmod": ([91, 99, 0o600], EBADF, EPERM),
    "fchmodat": ([268, -100, FILE, 0o600, 0], EPERM, EPERM),
    "fchmodat2": ([452, -100, FILE, 0o600, 0], EPERM, EPERM),
    "chown": ([92, FILE, -1, -1], 0, EPERM),
    "lchown": ([94, FILE, -1, -1], 0, EPERM),
    "fchown": ([93, 99, -1, -1], EBADF, EPERM),
    "fchownat": ([260, -100, FILE, -1, -1, 0], EPERM, EPERM),
    "utime": ([132, FILE, 0], 0, EPERM),
    "utimes": ([235, FILE, 0], 0, EPERM),
    "futimesat": ([261, -100, FILE, 0], EPERM, EPERM),
    "utimensat": ([280, -100, FILE, 0, 0], 0, EPERM),
    "setxattr": ([188, FILE, "user.x", "y", 1, 0], EPERM, EPERM),
    "lsetxattr": ([189, FILE, "user.x", "y", 1, 0], EPERM, EPERM),
    "removexattr": ([197, FILE, "user.x"], EPERM, EPERM),
    "socket unix": ([41, UNIX, STREAM, 0], 0, EAFNOSUPPORT),
    "socket inet": ([41, INET, STREAM, 0], EAFNOSUPPORT, EAFNOSUPPORT),
    "pair of streams": ([53, UNIX, STREAM, 0, 0], 14, 14),
    "pair of streams, with flags": ([53, UNIX, STREAM | CLOEXEC | NONBLOCK, 0, 0], 14, 14),
    "pair for datagrams": ([53, UNIX, DGRAM, 0, 0], 14, EPERM),
    "pair for datagrams, with flags": ([53, UNIX, DGRAM | CLOEXEC, 0, 0], 14, EPERM),
    "pair for packets": ([53, UNIX, SEQPACKET, 0, 0], 14, EPERM),
    "pair of the internet": ([53, INET, STREAM, 0, 0], None, EPERM),
    "bind": ([49, 99, 0, 0], EBADF, EPERM),
    "connect": ([42, 99, 0, 0], EPERM, EPERM),
    "sendto nowhere": ([44, 99, 0, 0, 0, 0, 0], EBADF, EBADF),
    "sendto somewhere": ([44, 99, 0, 0, 0, 4096, 0], EBADF, EPERM),
    "sendto somewhere high": ([44, 99, 0, 0, 0, HIGH, 0], EBADF, EPERM),
    "sendmsg": ([46, 99, 0, 0], EBADF, EBADF),
    "mknod a file": ([133, NEW, 0o100644, 0], 0, 0),
    "mknod a setuid file": ([133, NEW + "2", 0o104755, 0], EPERM, EPERM),
    "open a setuid file": ([2, NEW + "3", 0o101, 0o4755], EPERM, EPERM),
    "truncate": ([76, FILE, 0], 0, 0),
}


@pytest.mark.parametrize("strict", [False, True])
def test_calls(strict: bool, tmp_path: Path) -> None:
    (tmp_path / "filter").write_bytes(seccomp.program(sockets="none", share=True, strict=strict))
    (tmp_path / "file").write_text("x\n")

    def filled(word: int | str) -> int | str:
        if isinstance(word, int):
            return word
        return word.replace(FILE, f"{tmp_path}/file").replace(NEW, f"{tmp_path}/new")

    calls = [[filled(word) for word in row] for row, _, _ in ROWS.values()]
    argv = [sys.executable, str(CALLS), str(tmp_path / "filter"), json.dumps(calls)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    found = dict(zip(ROWS, json.loads(done.stdout), strict=True))
    wanted = {name: row[2] if strict else row[1] for name, row in ROWS.items()}
    assert {name: found[name] for name, error in wanted.items() if error is not None} == {
        name: error for name, error in wanted.items() if error is not None
    }  # fmt: skip


def test_one_without_a_share_changes_no_names(tmp_path: Path) -> None:
    (tmp_path / "filter").write_bytes(seccomp.program(sockets="none", share=False, strict=True))
    calls = [[82, str(tmp_path / "filter"), str(tmp_path / "moved")], [133, str(tmp_path / "made"), 0o100644, 0]]
    argv = [sys.executable, str(CALLS), str(tmp_path / "filter"), json.dumps(calls)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout) == [EPERM, EPERM]
