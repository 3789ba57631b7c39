"""What the helper does not take: one line, status 125, nothing started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helperkit import ALLOW, refused, run

NEVER = ("--", "/bin/sh", "-c", "echo started")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "usage: jail check"),
        (("frobnicate",), "usage:"),
        (("check", "more"), "usage:"),
        (("landlock",), 'no "--"'),
        (("landlock", "--"), 'no command behind "--"'),
        (("landlock", "--ro", *NEVER), "--ro: a value is missing"),
        (("landlock", "--ro", "/nonexistent", *NEVER), "--ro /nonexistent: No such file"),
        (("landlock", "--frob", "x", *NEVER), "--frob: unknown"),
        (("landlock", "--hold", "2", *NEVER), "--hold 2: not a number from 3"),
        (("landlock", "--hold", "9", "--hold", "9", *NEVER), "given twice"),
        (("landlock", "word\nof two lines", *NEVER), "word?of two lines: unknown"),
        (("landlock", "--rx", "/bin", "--", "/nonexistent"), "/nonexistent: cannot be started: No such file"),
        (("landlock", *NEVER), "/bin/sh: cannot be started: Permission denied"),
        (("packet",), 'no "--"'),
        (("packet", "lo"), 'no "--"'),
        (("packet", *NEVER), "no name of an interface"),
        (("packet", "--fd", "7", *NEVER), "no name of an interface"),
        (("packet", "a" * 16, *NEVER), "no name of an interface"),
        (("packet", "lo", *NEVER), "--filter FILE and --fd N are needed"),
        (("packet", "lo", "--fd", "7", *NEVER), "--filter FILE and --fd N are needed"),
        (("packet", "lo", "--fd", "2", *NEVER), "--fd 2: not a number from 3"),
        (("packet", "lo", "--fd", "7x", *NEVER), "--fd 7x: not a number"),
        (("packet", "lo", "--fd", "", *NEVER), "--fd : not a number"),
        (("packet", "lo", "--fd", "99999999999999999999", *NEVER), "not a number"),
        (("packet", "lo", "--fd", "+7", *NEVER), "not a number"),
        (("packet", "lo", "--buffer", "0", *NEVER), "--buffer 0: not a number from 1"),
        (("packet", "lo", "lo", *NEVER), "lo: unknown"),
    ],
)
def test_arguments(jail: Path, words: tuple[str, ...], said: str) -> None:
    refused(run(jail, *words), said)


@pytest.mark.parametrize("subcommand", [("landlock",), ("packet", "lo", "--fd", "7")])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "is no program"),
        (b"1234567", "is no program"),
        (ALLOW + b"x", "is no program"),
        (ALLOW * 4097, "is no program"),
        ("directory", "is not a file"),
        ("fifo", "is not a file"),
        ("/dev/zero", "is not a file"),
    ],
)
def test_filters_that_are_none(
    jail: Path, tmp_path: Path, subcommand: tuple[str, ...], content: bytes | str | None, said: str
) -> None:
    path = tmp_path / "filter"
    match content:
        case bytes():
            path.write_bytes(content)
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case str():
            path = Path(content)
    refused(run(jail, *subcommand, "--filter", path, *NEVER), f"filter {path}", said)


def test_filters_that_the_kernel_refuses(jail: Path, tmp_path: Path) -> None:
    path = tmp_path / "filter"
    for content in (ALLOW[::-1], b"\xff" * 8, ALLOW.replace(b"\x06", b"\x00")):  # no return at the end
        path.write_bytes(content)
        refused(run(jail, "landlock", "--rx", "/bin", "--filter", path, *NEVER), "does not take the filter")
