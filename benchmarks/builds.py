"""Measures of builds: nothing to do, small edits, from nothing, many recipes, kernels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks import byhand
from benchmarks.byhand import Make, Mkosi
from benchmarks.measure import OURS, Measure, Side, interleaved, skipped
from benchmarks.programs import Failed, seconds
from benchmarks.world import KERNEL_S, World, router

MANY = 100
_REBUILT = ("packages", "rootfs", "configure", "image", "edited_image", "bundle")


class Builds:
    """The measures of builds in one world; each may be called alone."""

    def __init__(self, world: World, rounds: int, mirror: str | None, mkosi_root: Path | None) -> None:
        self._world = world
        self._rounds = rounds
        self._names = (f"bench{number}" for number in count())
        self._recipe = world.recipe("bench")
        world.build(self._recipe)
        why = byhand.missing("make", "mmdebstrap", "mke2fs")
        self._peer = None if why else Make(world, _repository(world))
        self._why = why
        self._mkosi = Mkosi(world, mirror, self._peer.names, mkosi_root) if mirror and self._peer else None

    def noop(self) -> Measure:
        """A build with nothing to do; make only compares times, we read every input."""
        sides = [Side(OURS, lambda: self._world.build(self._recipe))]
        if self._peer:
            self._peer.make()
            sides.append(Side("make", self._peer.make))
        rows = interleaved(sides, self._rounds * 3)
        return Measure("no-op", "a build with nothing to do", rows, goal_s=0.25)

    def hostname(self) -> Measure:
        """Another host name, up to the new bundle."""
        sides = [Side(OURS, self._rename)]
        if self._peer:
            self._peer.make()
            sides.append(Side("make (unpack, mke2fs)", self._rename_by_hand))
        if (mkosi := self._mkosi) and not mkosi.missing():
            sides.append(Side("mkosi, incremental", lambda: mkosi.build(f"--hostname={next(self._names)}")))
            mkosi.build()  # fills its cache
        rows = interleaved(sides, self._rounds)
        return Measure("hostname edit", "another host name → new bundle", rows, goal_s=1.0)

    def package(self) -> Measure:
        """One package more, its file and its answer from the archives at hand."""
        names = ["less", "bc", "netbase", "file", "ed", "psmisc", "whiptail"]  # none is in the root anyway
        packages, others = iter(names), iter(names)

        def ours() -> float:
            self._world.recipe("bench", packages=f'"{next(packages)}"')
            return self._world.build(self._recipe)

        sides = [Side(OURS, ours)]
        if (mkosi := self._mkosi) and not mkosi.missing():
            sides.append(Side("mkosi, incremental", lambda: mkosi.build(f"--package={next(others)}")))
        rows = interleaved(sides, min(self._rounds, len(names)))
        self._world.recipe("bench")
        return Measure("one package more", "resolved, fetched, installed → new bundle", rows, goal_s=5.0)

    def root(self) -> Measure:
        """A root file system alone, configured, from packages that are there."""

        def ours() -> float:
            self._world.forget("rootfs", "configure")
            return self._world.build(self._recipe, verb="rootfs")

        sides = [Side(OURS, ours)]
        if (peer := self._peer) is not None:
            sides.append(Side("mmdebstrap", _after(peer.forget, lambda: peer.make("root.tar"))))
        rows = interleaved(sides, self._rounds)
        return Measure("cold root", "an archive of the root, nothing fetched", rows, goal_ratio=0.6)

    def cold(self) -> Measure:
        """A whole bundle from packages that are there."""

        def ours() -> float:
            self._world.forget(*_REBUILT)
            return self._world.build(self._recipe)

        sides = [Side(OURS, ours)]
        if (peer := self._peer) is not None:
            sides.append(Side("mmdebstrap + mke2fs", _after(peer.forget, peer.make)))
            if not byhand.missing("debootstrap"):
                sides.append(Side("debootstrap + mke2fs", lambda: byhand.debootstrap(self._world, peer)))
        rows = interleaved(sides, self._rounds)
        return Measure("cold, packages here", "all of hello's steps, nothing fetched", rows, goal_ratio=0.9)

    def many(self) -> Measure:
        """Many recipes that share all but their bundles, nothing to do."""
        # An image's identifier comes of its recipe's name, so each has its own: they are small.
        script = '{ kind = "script", command = ["/bin/true"] }'
        recipes = [
            self._world.recipe(f"many{number}", memory=64 + number, init=script, bootstrap="extract")
            for number in range(MANY)
        ]
        self._world.build(recipes[0])
        lock = self._world.root / "many0.lock.toml"
        for path in recipes[1:]:
            shutil.copy(lock, path.with_name(f"{path.stem}.lock.toml"))
        for start in range(0, MANY, 10):  # the host is asked for room for whole images, which are links in the end
            self._world.build(*recipes[start : start + 10])
        rows = interleaved([Side(OURS, lambda: self._world.build(*recipes))], self._rounds)
        return Measure(f"no-op, {MANY} recipes", "sharing kernel and root", rows, goal_s=1.0)

    def kernels(self) -> Iterator[Measure]:
        """The router's kernel, without and with what ccache knows. Many minutes."""
        try:
            path = router(self._world)
            self._world.build(path, verb="kernel", deadline_s=KERNEL_S)
            self._world.forget("kernel_source")  # a seeded kernel has none
            self._world.forget("kernel")
            self._world.build(path, verb="kernel", deadline_s=KERNEL_S)
        except Failed as error:
            yield skipped("kernel", "compiled from its source", str(error))
            return
        for name, keeps in (("kernel, cold ccache", False), ("kernel, warm ccache", True)):
            rounds = self._rounds if keeps else 1
            sides = [Side(OURS, partial(self._kernel, keeps)), Side("make", partial(self._kernel_by_hand, keeps))]
            if keeps:
                interleaved(sides, 1)
            yield Measure(name, "kernel and modules of recipes/router.toml", interleaved(sides, rounds))

    def whole(self) -> Measure:
        """The router, its kernel compiled, from packages that are there. Many minutes.

        Without ccache as by hand: filling one means to run the preprocessor twice.
        """
        path, cache = router(self._world), self._world.cache
        path.write_text(f"{path.read_text()}[build]\nccache = false\n")

        def ours() -> float:
            self._world.forget("kernel_source", "kernel_config", "kernel", *_REBUILT)
            return self._world.build(path, deadline_s=KERNEL_S)

        def by_hand() -> float:
            (source,) = (cache / "packages").glob("*/pool/linux-source-*.deb")
            repositories = [index.parents[4] for index in (cache / "packages").glob("*/dists/bookworm/main/*/Packages")]
            return byhand.router(self._world, source, self._world.entry("kernel_config") / "config", repositories)

        sides = [Side(OURS, ours)]
        if not byhand.missing("make", "mmdebstrap", "mke2fs"):
            sides.append(Side("make, mmdebstrap, mke2fs", by_hand))
        return Measure("cold router", "kernel, root, image; nothing fetched", interleaved(sides, 1), goal_ratio=0.9)

    def _rename(self) -> float:
        self._world.recipe("bench", hostname=next(self._names))
        return self._world.build(self._recipe)

    def _rename_by_hand(self) -> float:
        assert self._peer is not None
        self._peer.edit_hostname(next(self._names))
        return self._peer.make()

    def _kernel(self, keeps: bool) -> float:
        self._world.forget("kernel")
        if not keeps:
            shutil.rmtree(self._world.cache / "ccache", ignore_errors=True)
        return self._world.build(self._world.root / "router.toml", verb="kernel", deadline_s=KERNEL_S)

    def _kernel_by_hand(self, keeps: bool) -> float:
        objects = self._world.root / "objects"
        shutil.rmtree(objects, ignore_errors=True)
        objects.mkdir()
        shutil.copy(self._world.entry("kernel_config") / "config", objects / ".config")
        ccache = self._world.root / "ccache"
        if not keeps:
            shutil.rmtree(ccache, ignore_errors=True)
        source = self._world.entry("kernel_source") / "linux"
        with_ccache = [] if byhand.missing("ccache") else ["CC=ccache gcc", "HOSTCC=ccache gcc"]
        argv = [
            "make", "-s", "-C", os.fspath(source.resolve()), "ARCH=um", f"O={objects}",
            f"-j{len(os.sched_getaffinity(0))}", *with_ccache, "linux", "modules",
        ]  # fmt: skip
        env = {**self._world.env, "CCACHE_DIR": str(ccache), "CCACHE_NOHASHDIR": "1"}
        return seconds(argv, cwd=objects, deadline_s=KERNEL_S, env=env)


def _after(first: Callable[[], None], then: Callable[[], float]) -> Callable[[], float]:
    def run() -> float:
        first()
        return then()

    return run


def _repository(world: World) -> Path:
    """The entry of the root's packages: the only one with an index."""
    return next(path for path in (world.cache / "packages").iterdir() if (path / "dists" / "bookworm").is_dir())
