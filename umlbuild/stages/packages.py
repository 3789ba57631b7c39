"""Packages: fetch pinned .deb files, and lay a small Debian repository around them.

The only stage of a root file system that uses the network. Each byte is checked against its pin, so the
repository itself needs no signature. Downloads are shared by all recipes: a package is fetched once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from umlbuild.errors import StepFailed
from umlbuild.host import fetch, process, repository
from umlbuild.host.downloads import link
from umlbuild.specs.packages import DebPin, PackagesSpec
from umlbuild.stages.context import Context

_AT_ONCE = 8


def run(spec: PackagesSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:  # noqa: ARG001
    """Fill `out/pool` and, if a suite is asked for, `out/dists`.

    Raises: FetchError (gone, other bytes, no network), StepFailed (no mirror for an archive).
    """
    pool = out / "pool"
    pool.mkdir()
    names = [pin.filename for pin in spec.pins]
    if len(set(names)) != len(names):
        raise StepFailed("fetching packages: two pins have the same file name", "resolve the recipe anew")
    _fetch_all(spec.pins, pool, context)
    if spec.suite is not None:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            paragraphs = list(threads.map(lambda pin: _paragraph(pool / pin.filename, pin), spec.pins))
        repository.write(out, spec.suite, spec.architecture, paragraphs)


def _fetch_all(pins: tuple[DebPin, ...], pool: Path, context: Context) -> None:
    downloads = context.kept_downloads
    count = 0
    lock = threading.Lock()

    def fetch_one(pin: DebPin) -> None:
        nonlocal count
        link(downloads.package(pin, context.mirrors, session, context.note), pool / pin.filename)
        with lock:
            count += 1
            context.note(f"{count} of {len(pins)} packages")

    # The large ones first: the last to end is then not one that has just begun.
    in_order = sorted(pins, key=lambda pin: (-pin.size, pin.name))
    with fetch.connections(_AT_ONCE) as session, ThreadPoolExecutor(_AT_ONCE) as threads:
        rows = [threads.submit(fetch_one, pin) for pin in in_order]
        try:
            for row in rows:
                row.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _paragraph(deb: Path, pin: DebPin) -> str:
    control = process.output(["dpkg-deb", "--field", str(deb)], timeout_s=60)
    return repository.paragraph(control, pin.filename, pin.size, pin.sha256)
