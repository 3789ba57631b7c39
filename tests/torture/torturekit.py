"""A yard to hurt builds in: a vendored project with a cache of its own, so that no mirror is asked a second time."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import bundles

from umlbuild import digest
from umlbuild.host.store import MANIFEST, remove
from umlbuild.project import plan_recipe

CLI = (sys.executable, "-m", "umlbuild.cli")
BUILD_S = 240
"""No build of the small recipe takes so long, on the worst of days."""
LATE_S = 5.0
"""What a killed build leaves running must be gone then."""
_ROOM = 8 << 30
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h

SMALL = """format = 1
name = "small"

[kernel]
source = { kind = "prebuilt", suite = "trixie" }

[rootfs]
suite = "bookworm"
init = "busybox"
bootstrap = "extract"
hostname = "HOSTNAME"

[[rootfs.users]]
name = "ann"

[[rootfs.files]]
path = "/etc/made"
content = "made"

[image]
kind = "ext4"
"""


@dataclass(frozen=True)
class Yard:
    """A project whose cache is `home`/cache."""

    home: Path
    name: str = "small"
    env: Mapping[str, str] = field(default_factory=dict)
    offline: bool = True

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def dist(self) -> Path:
        return self.home / "dist" / self.name

    @property
    def released(self) -> Path:
        return self.home / "dist" / f"{self.name}-0"

    def start(self, *words: str, before: Sequence[str] = (), umask: int = -1) -> subprocess.Popen[str]:
        """A verb, in a process group of its own."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("UMLBUILD_")}
        return subprocess.Popen(
            [*before, *CLI, *words], cwd=self.home, env={**own, **self.env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, umask=umask,
        )  # fmt: skip

    def build(self, *more: str) -> subprocess.Popen[str]:
        """A build, begun."""
        return self.start("build", f"{self.name}.toml", "--locked", *(["--offline"] * self.offline), *more)

    def built(self, *more: str) -> dict[str, str]:
        """What a build gives, by name."""
        code, said = finished(self.build(*more))
        assert code == 0, said
        return digests(self.dist)

    def be(self, hostname: str) -> None:
        """The small recipe, of a machine of this name."""
        (self.home / "small.toml").write_text(SMALL.replace("HOSTNAME", hostname))

    def forget(self) -> None:
        """All entries are gone; downloads stay."""
        for path in self.cache.iterdir():
            if path.is_dir() and path.name != "downloads":
                remove(path)

    def entries(self) -> list[Path]:
        """Every entry, by stage."""
        return sorted(path.parent for path in self.cache.glob(f"*/*/{MANIFEST}"))

    def scratch(self) -> list[Path]:
        """What is there and no entry."""
        return [*self.cache.glob("work/*"), *self.cache.glob("*/.*.*"), *self.home.glob("dist/.*")]


def finished(build: subprocess.Popen[str], within_s: float = BUILD_S) -> tuple[int, str]:
    """Its exit code and what it said; a build that hangs is killed, and the test fails."""
    try:
        said, _ = build.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        os.killpg(build.pid, signal.SIGKILL)
        said, _ = build.communicate(timeout=30)
        raise AssertionError(f"not done after {within_s} s:\n{said}") from None
    return build.returncode, said


def digests(directory: Path) -> dict[str, str]:
    """Relative name → sha256 and mode of every file."""
    return {
        str(path.relative_to(directory)): f"{digest.of_file(path)} {path.stat().st_mode & 0o7777:o}"
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def facts(yard: Yard, cache: Path | None = None) -> dict[str, str]:
    """What must be the same everywhere: keys, each entry's manifest (its files' sha256), bundle and release."""
    plan = plan_recipe(yard.home / f"{yard.name}.toml", resolve=False, note=lambda _text: None, cache=yard.cache)
    rows: dict[str, str] = {}
    for step in plan.bundle.walk():
        entry = (cache or yard.cache) / step.stage / step.key
        rows[f"{step.stage} {step.key[:8]} {step.label}"] = digest.of_file(entry / MANIFEST)
    bundle = (cache or yard.cache) / plan.bundle.stage / plan.bundle.key
    release = {f"release {name}": sha256 for name, sha256 in digests(yard.released).items()}
    return {**rows, **{f"bundle {name}": sha256 for name, sha256 in digests(bundle).items()}, **release}


@contextmanager
def place() -> Iterator[Path]:
    """A directory that every user can reach, in RAM where there is room."""
    shm = shutil.disk_usage("/dev/shm").free > _ROOM
    with tempfile.TemporaryDirectory(prefix="umlbuild-torture-", dir="/dev/shm" if shm else "/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)
        remove(Path(name))
        Path(name).mkdir()


def vendored(recipe: Path, target: Path) -> Yard:
    """A yard with all downloads of a recipe, out of the tests' shared cache or fetched."""
    done = subprocess.run(
        [*CLI, "vendor", str(recipe), str(target)], cwd=recipe.parent, timeout=900, check=False, text=True,
        env={**os.environ, "UMLBUILD_CACHE": str(bundles.CACHE)}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return Yard(target, recipe.stem)


def copied(yard: Yard, home: Path) -> Yard:
    """Another project and cache of the same recipe, with its own copies of the downloads."""
    home.mkdir(parents=True)
    for path in yard.home.iterdir():
        if path.name in ("dist", "cache"):
            continue
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, home / path.name)
    shutil.copytree(yard.cache / "downloads", home / "cache/downloads")
    return Yard(home, yard.name, yard.env)


def adopt_orphans() -> None:
    """Descendants whose parents die become our children, so that none can hide."""
    assert ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0) == 0


def children() -> list[int]:
    """Our living children; the dead ones that nobody waits for are buried."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        for word in (task / "children").read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{word}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    os.waitpid(int(word), os.WNOHANG)
                else:
                    found.append(int(word))
    return found


def left_running(before: Sequence[int]) -> list[str]:
    """The command lines of what still runs LATE_S after a build's end."""
    end = time.monotonic() + LATE_S
    while (left := set(children()) - set(before)) and time.monotonic() < end:
        time.sleep(0.02)
    rows: list[str] = []
    for pid in left:
        with suppress(OSError):
            rows.append(f"{pid} {Path(f'/proc/{pid}/cmdline').read_text()}".replace("\0", " "))
            os.kill(pid, signal.SIGKILL)
    return rows


def mounts() -> str:
    """This namespace's mounts."""
    return Path("/proc/self/mounts").read_text()
