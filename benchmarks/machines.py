"""Measures of machines: from exec to the first line of init, to the login prompt, to the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import OURS, Measure, Row, Side, interleaved, skipped
from benchmarks.programs import Failed, seconds
from benchmarks.world import UP, World, router

_BOOT_S = 60.0


class Machines:
    """The measures of machines in one world."""

    def __init__(self, world: World, rounds: int, *, compiles: bool) -> None:
        self._world = world
        self._rounds = rounds
        self._compiles = compiles

    def prebuilt(self) -> Iterator[Measure]:
        """With the distribution's kernel, which nothing was compiled for."""
        script = f'{{ kind = "script", command = ["/bin/echo", "{UP.decode()}"] }}'
        self._world.build(self._world.recipe("once", init=script))
        bundle = self._world.root / "dist/once"
        yield Measure("boot to init, prebuilt kernel", "exec → first line of the command", self._rows(bundle, [], UP))
        yield Measure("run, prebuilt kernel", "boot, one command, power off", self._rows(bundle, [], None))

    def source(self) -> Iterator[Measure]:
        """With the router's kernel, 7.x, in the jail and by hand without one."""
        path = router(self._world)
        if not (self._compiles or (self._world.cache / "kernel").is_dir()):
            yield skipped("boot, kernel 7.x", "", "no compiled kernel: build recipes/router.toml, or --slow")
            return
        self._world.build(path, deadline_s=3600)
        bundle = self._world.root / "dist/router"
        tiny = ["init=/bench-init"]
        yield Measure(
            "boot to init, kernel 7.x", "exec → first line of init",
            self._rows(bundle, tiny, UP, both=True), goal_s=0.06,
        )  # fmt: skip
        yield Measure(
            "run, kernel 7.x", "boot, one command, power off", self._rows(bundle, tiny, None, both=True), goal_s=0.15
        )
        # The router's recipe logs root in: its terminal says so by the shell's prompt.
        yield Measure(
            "boot to login, kernel 7.x", "exec → prompt on systemd's tty1",
            self._rows(bundle, [], b"root@router", both=True), goal_s=2.5,
        )  # fmt: skip

    def _rows(self, bundle: Path, words: list[str], until: bytes | None, *, both: bool = False) -> list[Row]:
        def ours() -> float:
            argv: list[str | Path] = [bundle / "run", "--ephemeral", "--", *words]
            return seconds(argv, cwd=self._world.root, deadline_s=_BOOT_S, env=self._world.env, until=until)

        ours()  # measures lpj, and knows the bundle from then on
        sides = [Side(OURS, ours)]
        if both:
            sides.append(Side("linux, no jail", lambda: self._by_hand(bundle, words, until)))
        return interleaved(sides, self._rounds * 2)

    def _by_hand(self, bundle: Path, words: list[str], until: bytes | None) -> float:
        """The same kernel, image and command line, with the lpj that the launcher measured."""
        place = self._world.root / "uml"
        shutil.rmtree(place, ignore_errors=True)
        (place / "u").mkdir(parents=True)
        measured = next((self._world.root / "home/.cache/umlbuild").glob("lpj-*"), None)
        if measured is None:
            raise Failed("the launcher has measured no lpj")
        argv: list[str | Path] = [
            bundle / "linux", "mem=256M", "umid=m", f"uml_dir={place}/u/", "quiet", "con=null", "ssl=null",
            "con0=null,fd:2", "con1=null,fd:1", f"ubd0={place}/root.cow,{os.path.realpath(bundle / 'root.img')}",
            f"lpj={measured.read_text().strip()}", "root=/dev/ubda", "rootfstype=ext4", "rw", "noreboot",
            *(words or ["init=/sbin/init"]),
        ]  # fmt: skip
        return seconds(argv, cwd=place, deadline_s=_BOOT_S, env={**self._world.env, "TMPDIR": "/dev/shm"}, until=until)
