"""A disk that becomes full while a build works, at many sizes: told as that; with more room, the same bundle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torturekit import Yard, copied, digests, finished

from umlbuild.host.store import remove

pytestmark = pytest.mark.slow

SIZES_MIB = (1, 2, 5, 10, 20, 40, 60, 80, 120, 160, 200, 240, 280, 320, 360, 400, 440, 480, 500, 520, 540, 560, 700)
"""From scratch that cannot be made to a bundle that cannot be published. A whole cache takes 520."""
ENOUGH_MIB = 2000
"""A build looks before it begins, and wants 1540."""

# Mounted in a namespace of its own; this very test's process sees the tree by way of /proc/PID/root.
HOLD = "import sys; print('up', flush=True); sys.stdin.read()"


@pytest.fixture(scope="module")
def good(small: Yard) -> dict[str, str]:
    return small.built()


@pytest.mark.timeout(3600)
def test_full(small: Yard, good: dict[str, str], room: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system of a size that every program of a build sees")
    spare = copied(small, room / "full")
    results: list[str] = []
    failed = 0
    place = room / "disk"
    place.mkdir()
    argv = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", HOLD]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        inside = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", f"--wd={place}", "--"]

        def do(*words: str) -> None:
            subprocess.run([*inside[:2], "--", *words], check=True, timeout=120)

        try:
            do("mount", "-t", "tmpfs", "-o", f"size={ENOUGH_MIB}m", "disk", str(place))
            seen = Path(f"/proc/{holder.pid}/root{place}")
            for mib in SIZES_MIB:
                for path in seen.iterdir():
                    subprocess.run(["rm", "-rf", str(path)], check=True, timeout=60)
                for name in ("small.toml", "small.lock.toml"):
                    (seen / name).write_bytes((spare.home / name).read_bytes())
                (seen / "cache").mkdir()
                (seen / "cache/downloads").symlink_to(spare.cache / "downloads")
                building = begun(inside)
                end = time.monotonic() + 60
                while not any(seen.glob("cache/work/*")) and time.monotonic() < end:
                    time.sleep(0.005)
                do("mount", "-o", f"remount,size={mib}m", str(place))
                code, said = finished(building)
                results.append(f"{mib} MiB: exit {code}: {cause(said) if code else 'built'}")
                yard = Yard(seen)
                if code:
                    failed += 1
                    assert code in (1, 2) and "Traceback" not in said and "bug" not in said, (mib, said)
                    assert "full" in said and f"df -h {place}" in said and "UMLBUILD_CACHE" in said, (mib, said)
                    assert not yard.dist.exists()
                do("mount", "-o", f"remount,size={ENOUGH_MIB}m", str(place))
                checked, said = finished(Yard(Path("/")).start("du", "--check", before=inside))
                assert checked == 0, (mib, said)
                code, said = finished(begun(inside))
                assert code == 0, (mib, said)
                assert digests(yard.dist) == good, mib
        finally:
            print("\n".join(results))
            holder.stdin.close()
            holder.wait(30)
    remove(spare.home)
    assert failed > 5


def begun(inside: list[str]) -> subprocess.Popen[str]:
    return Yard(Path("/")).start("build", "small.toml", "--locked", "--offline", before=inside)


def cause(said: str) -> str:
    """The line of an error that names it."""
    rows = [row.strip() for row in said.splitlines() if "full" in row]
    return rows[0] if rows else said[-300:]
