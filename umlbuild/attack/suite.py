"""All attempts against one bundle: a private copy of it, canaries around it, one row for each attempt.

The copy is started twice over: as it is, for what guest root tries; and with a program of system calls in the place
of its kernel, for what code in UML's process tries. The user's own bundle, shares and state are never touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from umlbuild.attack.attempt import Attempt, ByCode, ByGuest, Evidence, Needs, Scene
from umlbuild.attack.canaries import Canaries
from umlbuild.attack.code import CODE
from umlbuild.attack.guest import GUEST
from umlbuild.attack.program import Program
from umlbuild.errors import HostError
from umlbuild.host import process, sparse
from umlbuild.runtime.failures import MachineError
from umlbuild.runtime.machine import Machine, runtime_base

ATTEMPTS: tuple[Attempt, ...] = (*GUEST, *CODE)
_UP_S = 120
_ATTEMPT_S = 30
_RUN_S = 60


@dataclass(frozen=True)
class Row:
    """What became of one attempt."""

    name: str
    group: str
    tries: str
    verdict: Literal["held", "open", "not tried"]
    seen: str
    """What was seen of one that is open; why one was not tried."""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


class Suite:
    """The attempts on a bundle; iterate over `rows`. A context manager.

    Raises: HostError if it is no bundle, NotUp or MachineEnded if its machine does not come up.
    """

    def __init__(self, bundle: Path, *, allow_root: bool = False) -> None:
        recipe = bundle / "recipe.toml"
        if not recipe.is_file() or not os.access(bundle / "run", os.X_OK):
            raise HostError(f"{bundle}: is not a bundle: it has no launcher `run`", "build it: doit build recipe=…")
        self._source = bundle.resolve()
        self._recipe: dict[str, Any] = tomllib.loads(recipe.read_text())
        self._allow_root = allow_root
        sandbox = self._recipe["launch"]["sandbox"]["kind"]
        self._jailed = sandbox != "none"
        self._has_own_root = sandbox == "bwrap"
        if os.getuid() == 0 and not self._jailed:
            raise HostError(
                f"{bundle}: it has no sandbox: as root, attempts would reach this host itself",
                "attack it as an ordinary user",
            )
        self._stack = contextlib.ExitStack()
        self._machine: Machine | None = None

    def __enter__(self) -> Suite:
        with contextlib.ExitStack() as stack:
            self._canaries = stack.enter_context(Canaries())
            self._bundle = self._canaries.home / "bundle"
            _copy(self._source, self._bundle)
            stack.callback(self._end_machine)
            self._options, self._arguments, self._numbers = self._shares()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rows(self, attempts: Sequence[Attempt] = ATTEMPTS) -> Iterator[Row]:
        """Make the attempts, in their order."""
        has = self._what_it_has()
        for attempt in attempts:
            missing = [need for need in attempt.needs if need not in has]
            if missing:
                yield _row(attempt, "not tried", f"this machine has no {', no '.join(missing)}")
                continue
            evidence, scene = self._made(attempt, has)
            seen = attempt.judge(scene, evidence)
            yield _row(attempt, "open" if seen else "held", seen)

    # --- making them --------------------------------------------------------------------------------------

    def _made(self, attempt: Attempt, has: frozenset[Needs]) -> tuple[Evidence, Scene]:
        if isinstance(attempt, ByGuest):
            machine = self._running()
            scene = self._scene(has, machine.mconsole_path.parents[2])
            return self._by_guest(machine, attempt.script(scene)), scene
        assert isinstance(attempt, ByCode)
        home = Path(tempfile.mkdtemp(prefix="umlm-", dir=runtime_base())).resolve()
        try:
            scene = self._scene(has, home)
            return self._by_code(attempt, scene, home), scene
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _by_guest(self, machine: Machine, script: str) -> Evidence:
        said = bytearray()

        def keep(block: bytes | memoryview) -> None:
            said.extend(block[: max(0, (4 << 20) - len(said))])

        try:
            machine.exec(script, timeout_s=_ATTEMPT_S, on_stdout=keep, on_stderr=keep)
        except MachineError:  # it hangs, or has killed itself: that is its own affair
            self._end_machine()
        return Evidence(bytes(said))

    def _by_code(self, attempt: ByCode, scene: Scene, home: Path) -> Evidence:
        """Run the launcher as it is, but for the kernel and its line of the checksums."""
        program = Program(os.urandom(16))
        attempt.program(scene, program)
        bundle = self._canaries.home / "code"
        _copy(self._bundle, bundle)
        try:
            _replace_kernel(bundle, program.elf())
            argv = [str(bundle / "run"), "--runtime", str(home), "--ephemeral", *self._options]
            environment = {"PATH": process.environment()["PATH"]}
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
                env=environment, start_new_session=True,
            )  # fmt: skip
            try:
                output, _ = child.communicate(timeout=_RUN_S)
            except subprocess.TimeoutExpired:
                output = b""
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
        finally:
            shutil.rmtree(bundle)
        results = program.results(output)
        if results is None:
            tail = output[-2000:].decode(errors="replace")
            raise HostError(f"{attempt.name}: the program did not run in the kernel's place:\n{tail}")
        return Evidence(output, results)

    # --- the machine ----------------------------------------------------------------------------------------

    def _running(self) -> Machine:
        if self._machine is None or not self._machine.is_running():
            self._end_machine()
            options = [word for word in self._options if word != "--allow-root"]
            self._machine = Machine.start(
                self._bundle, ephemeral=True, allow_root=self._allow_root, options=options, arguments=self._arguments
            )
            self._machine.wait_up(_UP_S)
        return self._machine

    def _end_machine(self) -> None:
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.close()

    def _what_it_has(self) -> frozenset[Needs]:
        has: set[Needs] = {"share"} if self._numbers else set()
        has |= {"writable share"} if "rw" in self._numbers else set()
        if re.search(rb"\bhostfs$", self._running().exec("cat /proc/filesystems").stdout, re.MULTILINE):
            has.add("hostfs")
        return frozenset(has)

    def _shares(self) -> tuple[list[str], list[str], dict[str, int]]:
        """Options and kernel arguments that put canaries into the places of the shares, and the shares' numbers."""
        options = ["--allow-root"] * self._allow_root + ["--no-sandbox"] * (not self._jailed)
        numbers: dict[str, int] = {}
        for number, share in enumerate(self._recipe.get("share", [])):
            kind = "rw" if share.get("writable") else "ro"
            options += ["--share", f"{share['guest']}={self._canaries.shares[kind]}"]
            numbers.setdefault(kind, number)
        if self._jailed:
            return options, [], numbers
        # Nothing protects a share there, so recipes cannot have one; its hostfs is confined as the HOWTO tells.
        base = self._canaries.home / "shares"
        base.mkdir()
        for number, kind in enumerate(("ro", "rw")):
            (base / str(number)).symlink_to(self._canaries.shares[kind])
        return options, [f"hostfs={base}"], {"ro": 0, "rw": 1}

    def _scene(self, has: frozenset[Needs], home: Path) -> Scene:
        inside = [f"/{name}" for name in ("dev/null", "dev/random", "dev/shm/u", "lib/x", "lib64/x")]
        inside += [f"{home}/{name}" for name in ("linux", "u", "box")]
        inside = [*inside, str(self._canaries.home)] if self._numbers else inside
        share = f"{home}/share/{self._numbers.get('rw', 0)}" if self._jailed else str(self._canaries.shares["rw"])
        return Scene(
            canaries=self._canaries, needs=has, share_numbers=self._numbers, bundle=str(self._bundle),
            home=str(home), writable_share=share, inside=frozenset(inside if self._has_own_root else ()),
        )  # fmt: skip


def _copy(source: Path, target: Path) -> None:
    """A bundle again: its images are hard links where that is possible."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        to = target / path.relative_to(source)
        if path.is_dir():
            to.mkdir()
        elif path.suffix == ".img":
            sparse.link_or_copy(path, to)
        else:
            shutil.copy2(path, to)


def _replace_kernel(bundle: Path, content: bytes) -> None:
    linux, run = bundle / "linux", bundle / "run"
    linux.write_bytes(content)
    line = process.output(["cksum", "linux"], cwd=bundle).strip()
    text, count = re.subn(r"(?m)(?<![0-9])[0-9]+ [0-9]+ linux\b", line, run.read_text())
    assert count == 1
    run.write_text(text)


def _row(attempt: Attempt, verdict: Literal["held", "open", "not tried"], seen: str) -> Row:
    return Row(attempt.name, attempt.group, attempt.tries, verdict, seen)
