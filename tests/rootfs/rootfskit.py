"""What the root file system tests share: small roots and .deb files made here, real ones fetched once."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from umlbuild import digest
from umlbuild.host import process
from umlbuild.host.apt import Apt
from umlbuild.host.mirrors import keyring, mirrors
from umlbuild.host.residue import clean
from umlbuild.host.skeleton import skeleton
from umlbuild.host.store import Store
from umlbuild.host.tree import Tree
from umlbuild.kinds.bootstraps import KINDS
from umlbuild.resolving import with_base
from umlbuild.specs.packages import DebPin, PackagesSpec
from umlbuild.specs.rootfs import ConfigureSpec, RootfsSpec
from umlbuild.stages import configure, packages
from umlbuild.stages.context import Context

CACHE = Path(__file__).resolve().parents[2] / "cache" / "tests" / "rootfs"
INCLUDE = ("iproute2", "iputils-ping", "systemd-sysv", "udev")


def small_root() -> Tree:
    """A root without packages, but with accounts, a shell and a merged /usr."""
    tree = skeleton()
    tree.put_file("/usr/bin/sh", b"#!\n", mode=0o755)
    tree.put_file("/etc/skel/.profile", b"umask 022\n")
    clean(tree)
    return tree


def configured(spec: ConfigureSpec, root: Tree, where: Path, **inputs: Path) -> Tree:
    """The tree that the configure stage makes of a root."""
    for name in ("in", "out", "work"):
        (where / name).mkdir(parents=True)
    root.write(where / "in" / "rootfs.tar")
    sources: dict[str, Path] = {digest.of_file(path): path for path in where.glob("*.source")}
    context = Context(work=where / "work", log=where / "log", sources=sources)
    configure.run(spec, {"rootfs": where / "in", **inputs}, where / "out", context)
    return Tree.of(where / "out" / "rootfs.tar")


def make_deb(directory: Path, name: str, version: str = "1.0", depends: str = "", **fields: str) -> Path:
    """A tiny package, at the place in a pool that its name gives it."""
    root = directory / "build" / f"{name}_{version}"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr/share/tiny").mkdir(parents=True)
    (root / f"usr/share/tiny/{name}").write_text(f"{name} {version}\n")
    rows = {
        "Package": name, "Version": version, "Architecture": "amd64", "Maintainer": "T <t@mail.example>",
        "Priority": "optional", "Depends": depends, **fields, "Description": "a test",
    }  # fmt: skip
    control = "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in rows.items() if value)
    (root / "DEBIAN/control").write_text(control)
    pool = directory / "pool" / "main" / name[0] / name
    pool.mkdir(parents=True, exist_ok=True)
    deb = pool / f"{name}_{version.rsplit(':', maxsplit=1)[-1]}_amd64.deb"
    argv = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(deb)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return deb


def pin_of(deb: Path, archive_root: Path, name: str, version: str = "1.0") -> DebPin:
    """The pin of a package made here."""
    return DebPin(
        name=name, version=version, architecture="amd64", size=deb.stat().st_size,
        sha256=digest.of_file(deb), path=str(deb.relative_to(archive_root)),
    )  # fmt: skip


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    """A web server of a directory on this machine; yields its base URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join(10)


def apt() -> Apt:
    """Debian's packages as the host's mirror has them."""
    return Apt(
        cache=CACHE, mirrors=mirrors(None, os.environ), keyring=keyring(os.environ),
        architecture="amd64", fresh_for_s=86_400,
    )  # fmt: skip


@functools.cache
def repository(suite: str, include: tuple[str, ...] = INCLUDE, over: tuple[str, ...] | None = None) -> Path:
    """An entry of the packages stage with a minimal root's packages, without those of a base with `over`, if given."""
    pins = apt().resolve(suite, "minbase", include)
    if over is not None:
        pins = tuple(pin for pin in with_base(pins, apt().resolve(suite, "minbase", over)) if not pin.base)
    spec = PackagesSpec(suite=suite, architecture="amd64", pins=pins)
    key = digest.of_json([spec.model_dump(mode="json"), digest.of_file(Path(packages.__file__))])
    store = Store(CACHE)
    with store.locked("packages", key):
        if not store.has("packages", key):
            with store.filling("packages", key) as out, store.working("packages") as work:
                urls: Mapping[str, str] = {str(name): url for name, url in mirrors(None, os.environ).items()}
                context = Context(work=work, log=work / "log", mirrors=urls, downloads=CACHE / "downloads")
                packages.run(spec, {}, out, context)
    return store.path("packages", key)


def rootfs_spec(kind: str, suite: str, include: Sequence[str] = INCLUDE, *, layer: bool = False) -> RootfsSpec:
    """The spec of a root, or of a layer over its base, with the method that its kind gives it."""
    model = next(model for model in KINDS if model.model_fields["kind"].default == kind)()
    method = model.layer(suite, "amd64") if layer else model.method(suite, "amd64")
    return RootfsSpec.model_validate(
        {
            "bootstrap": kind, "method": method, "suite": suite, "architecture": "amd64",
            "variant": "minbase", "include": tuple(include),
        }
    )  # fmt: skip


def native() -> bool:
    """Whether this machine is of the architecture that the tests build for."""
    return process.output(["dpkg", "--print-architecture"]).strip() == "amd64"
