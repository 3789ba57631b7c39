"""Whether the bundle is the one that was built: found by the launcher's own functions, without reading holes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from umlbuild.host import seal, sums
from umlbuild.stages import bundle

CHECKS = Path(bundle.__file__).parents[1] / "launcher/checks/bundle.sh"
MIB = 1 << 20
SIZE = 64 * MIB
DATA = {0: b"first" * 1000, 33 * MIB + 5: b"x" * MIB, SIZE - 4096: b"last"}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, str]:
    """A bundle's directory with an image, an empty disk and a plain file, and what the launcher knows of them."""
    entry, disk, out = tmp_path / "image", tmp_path / "disk", tmp_path / "out"
    for path in (entry, disk, out):
        path.mkdir()
    for path, data in ((entry, DATA), (disk, {})):
        with (path / seal.IMAGE).open("wb") as file:
            os.truncate(file.fileno(), SIZE)
            for at, content in data.items():
                file.seek(at)
                file.write(content)
        sums.of(path / seal.IMAGE).write(path / seal.SUMS)
    images = {"root.img": entry / seal.IMAGE, "disk0.img": disk / seal.IMAGE}
    for name, image in images.items():
        os.link(image, out / name)
    (out / "linux").write_bytes(b"kernel" * 9999)
    return out, bundle._sums(out, ["disk0.img", "linux", "root.img"], images)


def wrong(made: tuple[Path, str], path: str = os.environ["PATH"]) -> str:
    """The file that the launcher names."""
    script = f'set -eu\n. "{CHECKS}"\nfirst_wrong_file\n'
    done = subprocess.run(["sh", "-c", script], cwd=made[0], env={"PATH": path, "SUMS": made[1]}, timeout=60,
                          capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout.strip() + done.stderr.strip()


def write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_holes_are_not_read(made: tuple[Path, str], tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "cksum").write_text('#!/bin/sh\ntee -a "$0.read" | /usr/bin/cksum\n')
    (tools / "cksum").chmod(0o755)
    assert wrong(made, f"{tools}:{os.environ['PATH']}") == ""
    # MiB 0, 33, 34 and 63 hold data
    assert (tools / "cksum.read").stat().st_size == 4 * MIB + (made[0] / "linux").stat().st_size


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        (lambda out: None, ""),
        (lambda out: write(out / "root.img", 3, b"!"), "root.img"),
        (lambda out: write(out / "root.img", 34 * MIB, b"!"), "root.img"),
        (lambda out: write(out / "root.img", SIZE - 1, b"!"), "root.img"),
        (lambda out: write(out / "root.img", 10 * MIB, b"!" * 4 * MIB), "root.img"),
        (lambda out: os.truncate(out / "root.img", SIZE + 1), "root.img"),
        (lambda out: os.truncate(out / "root.img", SIZE - MIB), "root.img"),
        (lambda out: write(out / "disk0.img", 5 * MIB, b"!"), "disk0.img"),
        (lambda out: write(out / "linux", 5, b"!"), "linux"),
        (lambda out: (out / "linux").unlink(), "linux"),
        (lambda out: (out / "root.img").unlink(), "root.img"),
    ],
)
def test_what_is_another_file_is_named(made: tuple[Path, str], harm: Callable[[Path], object], name: str) -> None:
    harm(made[0])
    assert wrong(made) == name


@pytest.mark.parametrize("changed", [False, True])
def test_a_copy_without_holes_is_read_whole(made: tuple[Path, str], changed: bool) -> None:
    image = made[0] / "root.img"
    full = image.read_bytes()
    image.unlink()
    image.write_bytes(full)
    if changed:
        write(image, 20 * MIB, b"!")
    assert wrong(made) == ("root.img" if changed else "")
