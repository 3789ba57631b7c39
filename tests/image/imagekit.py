"""What the image tests share: tools entries from real packages, a small awkward root, building, reading back."""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from umlbuild import digest
from umlbuild.host import process, tarball, tooltree
from umlbuild.host.apt import Apt
from umlbuild.host.mirrors import keyring, mirrors
from umlbuild.host.store import Store
from umlbuild.host.tarball import Member
from umlbuild.specs.image import ImageSpec
from umlbuild.specs.model import Spec
from umlbuild.specs.packages import PackagesSpec
from umlbuild.specs.tools import ToolsSpec
from umlbuild.stages import image, packages, tools
from umlbuild.stages.context import Context

CACHE = Path(__file__).resolve().parents[2] / "cache" / "tests" / "image"
SUITE = "trixie"
UUID = "7c0f6d9e-0000-4000-8000-000000000001"

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
"""cap_net_raw+ep, as VFS capabilities of version 2."""

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in ((1, 7, 2**32 - 1), (4, 5, 2**32 - 1), (8, 4, 4), (0x10, 7, 2**32 - 1), (0x20, 5, 2**32 - 1))
)


def store() -> Store:
    """The cache of the image tests."""
    return Store(CACHE)


def entry(spec: Spec, key: str, inputs: dict[str, Path], run: object) -> Path:
    """The store entry of a stage, made now if it is not there."""
    kept = store()
    with kept.locked(spec.STAGE, key):
        if not kept.has(spec.STAGE, key):
            with kept.filling(spec.STAGE, key) as out, kept.working(spec.STAGE) as work:
                context = Context(
                    work=work, log=kept.log(spec.STAGE, key), downloads=CACHE / "downloads",
                    mirrors={str(name): url for name, url in mirrors(None, os.environ).items()},
                )  # fmt: skip
                run(spec, inputs, out, context)  # type: ignore[operator]
    return kept.path(spec.STAGE, key)


@functools.cache
def tools_entry(names: tuple[str, ...], programs: tuple[str, ...], libraries: tuple[str, ...] = ()) -> Path:
    """A tools entry of these packages and all they depend on."""
    apt = Apt(
        cache=CACHE, mirrors=mirrors(None, os.environ), keyring=keyring(os.environ),
        architecture="amd64", fresh_for_s=86_400,
    )  # fmt: skip
    pins = apt.closure(SUITE, sorted(names))
    fetched = PackagesSpec(suite=None, architecture="amd64", pins=pins)
    pool = entry(fetched, digest.of_json(fetched.model_dump(mode="json")), {}, packages.run)
    spec = ToolsSpec(programs=tuple(sorted(programs)), libraries=tuple(sorted(libraries)))
    key = digest.of_json([spec.model_dump(mode="json"), fetched.model_dump(mode="json"), _code(tools)])
    return entry(spec, key, {"packages": pool}, tools.run)


def _code(module: object) -> str:
    """A test must not take the entry of another version of the stage."""
    return digest.of_file(Path(str(getattr(module, "__file__"))))  # noqa: B009


def awkward_root() -> list[Member]:
    """A root with everything that image formats get wrong."""
    big = bytes(range(256)) * 4096
    return [
        Member("", "dir", 0o755),
        Member("bin", "dir", 0o755),
        Member("bin/ping", "file", 0o755, data=b"p" * 5000, xattrs={"security.capability": CAPABILITY}),
        Member("bin/ping4", "link", 0o755, target="bin/ping"),
        Member("bin/su", "file", 0o4755, data=b"x" * 100),
        Member("dev", "dir", 0o755),
        Member("dev/null", "char", 0o666, device=(1, 3)),
        Member("etc", "dir", 0o755),
        Member("etc/empty", "file", 0o644),
        Member("etc/fifo", "fifo", 0o600),
        Member("etc/link", "symlink", 0o777, target="shadow"),
        Member("etc/shadow", "file", 0o640, gid=42, data=b"root:!:::::::\n"),
        Member("etc/shadow-", "file", 0o000, gid=42, data=b"root:!:::::::\n"),
        Member("etc/with space", "file", 0o644, data=b"space\n"),
        Member("etc/ünï-☃", "file", 0o644, data=b"snow\n"),
        Member("home", "dir", 0o755),
        Member("home/u", "dir", 0o2770, uid=100_000, gid=70_000),
        Member("home/u/note", "file", 0o644, uid=100_000, gid=70_000, data=b"hi", xattrs={"user.note": b"hello"}),
        Member("proc", "dir", 0o555),
        Member("run", "dir", 0o755),
        Member("tmp", "dir", 0o1777),
        Member("var", "dir", 0o755),
        Member("var/acl", "dir", 0o2755, gid=999, xattrs={"system.posix_acl_access": ACL}),
        Member("var/big", "file", 0o644, data=big),
        Member("var/" + "n" * 180, "file", 0o644, data=b"long\n"),
        Member("var/zeros", "file", 0o644, data=bytes(2 << 20)),
    ]


def root_entry(directory: Path, members: Sequence[Member]) -> Path:
    """An entry as the configure stage leaves it."""
    directory.mkdir(parents=True, exist_ok=True)
    tarball.write(members, directory / "rootfs.tar")
    return directory


def build(spec: ImageSpec, root: Path | None, tools_tree: Path, where: Path) -> Path:
    """Run the image stage in a directory of its own; returns root.img."""
    out, work = where / "out", where / "work"
    out.mkdir(parents=True)
    work.mkdir()
    inputs = {"tools": tools_tree} | ({"root": root} if root else {})
    image.run(spec, inputs, out, Context(work=work, log=where / "log"))
    return out / "root.img"


def tool(entry_: Path, program: str, *arguments: str, ok: Sequence[int] = (0,), log: Path | None = None) -> str:
    """What a program of a tools entry prints."""
    return process.output([*tooltree.tool_argv(entry_, program), *arguments], timeout_s=120, ok=ok, log=log)
