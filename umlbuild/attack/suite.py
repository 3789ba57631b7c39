"""Attempts against one bundle: a private copy of it, canaries around it, one row for each attempt.

The copy is started as it is, for what guest root tries; with a program of system calls in the place of its kernel, for
what code in UML's process tries; and twice over, for what a machine leaves to its next start. Attempts that do not
disturb each other share a start: what they are judged by tells them apart, or they are made once more, one by one. The
user's own bundle, shares and state are never touched.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from umlbuild.attack import limits
from umlbuild.attack.attempt import (
    BLURRED,
    Attempt,
    ByCode,
    ByGuest,
    ByGuestCode,
    ByRestart,
    Evidence,
    Live,
    Needs,
    Scene,
    Verdict,
)
from umlbuild.attack.cables import cables
from umlbuild.attack.canaries import Canaries
from umlbuild.attack.code import CODE
from umlbuild.attack.exhaust import EXHAUST
from umlbuild.attack.guest import GUEST
from umlbuild.attack.inside import INSIDE
from umlbuild.attack.measure import measuring
from umlbuild.attack.program import Program
from umlbuild.attack.restart import RESTART
from umlbuild.errors import HostError
from umlbuild.host import process, sparse
from umlbuild.runtime.failures import MachineError
from umlbuild.runtime.machine import Machine, runtime_base, sweep

ATTEMPTS: tuple[Attempt, ...] = (*GUEST, *INSIDE, *CODE, *EXHAUST, *RESTART)
_UP_S = 120
_ATTEMPT_S = 30
_RUN_S = 60
_TOGETHER = 16
"""Attempts that share a start at most: rows come in such portions."""
_KEPT = 4 << 20
"""Bytes of output that are looked at."""
_RUN_PROGRAM = "p=/var/tmp/attack.$$; cat >$p && chmod 700 $p && $p; rm -f $p"


@dataclass(frozen=True)
class Row:
    """What became of one attempt."""

    name: str
    group: str
    tries: str
    verdict: Verdict
    seen: str
    """What was seen of one that got through; why one was not tried."""

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
        self._launcher: subprocess.Popen[bytes] | None = None
        self._aborted = False
        self._last_words = ""

    def __enter__(self) -> Suite:
        with contextlib.ExitStack() as stack:
            self._canaries = stack.enter_context(Canaries())
            self._bundle = self._canaries.home / "bundle"
            _copy(self._source, self._bundle)
            self._limits = limits.lower(self._bundle / "run", self._recipe)
            self._code_bundle = self._canaries.home / "code"
            _copy(self._bundle, self._code_bundle)
            stack.callback(self._end_machine)
            self._cables = cables(self._recipe)
            self._options, self._arguments, self._numbers = self._shares()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def abort(self) -> None:
        """From another thread: end what runs, so that `rows` comes to an end by an exception."""
        self._aborted = True
        if (launcher := self._launcher) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, signal.SIGKILL)
        if (machine := self._machine) is not None:
            machine.kill()

    def rows(self, attempts: Sequence[Attempt] = ATTEMPTS) -> Iterator[Row]:
        """Make the attempts, in their order."""
        has = self._what_it_has()
        for _, group in itertools.groupby(attempts, key=_companion):
            tried: list[Attempt] = []
            for attempt in group:
                if missing := [need for need in attempt.needs if need not in has]:
                    yield _row(attempt, "not tried", f"there is no {', no '.join(missing)}")
                else:
                    tried.append(attempt)
            for at in range(0, len(tried), _TOGETHER):
                for attempt, seen in self._judged(tried[at : at + _TOGETHER], has):
                    yield _row(attempt, "held" if not seen else "weak" if attempt.weak else "open", seen)

    # --- making them --------------------------------------------------------------------------------------

    def _judged(self, attempts: Sequence[Attempt], has: frozenset[Needs]) -> Iterator[tuple[Attempt, str]]:
        made = self._made_together(attempts, has) if len(attempts) > 1 else None
        if made is None:
            for attempt in attempts:
                scene, evidence = self._made(attempt, has)
                yield attempt, attempt.judge(scene, evidence)
            return
        scene, evidences = made
        seen = [attempt.judge(scene, evidence) for attempt, evidence in zip(attempts, evidences, strict=True)]
        blurred = any(what and attempt.judge in BLURRED for attempt, what in zip(attempts, seen, strict=True))
        for attempt, what in zip(attempts, seen, strict=True):
            if blurred and attempt.judge in BLURRED:
                scene, evidence = self._made(attempt, has)
                what = attempt.judge(scene, evidence)
            yield attempt, what

    def _made_together(
        self, attempts: Sequence[Attempt], has: frozenset[Needs]
    ) -> tuple[Scene, list[Evidence]] | None:
        """In one start; None if that did not come to its end."""
        with self._private_home() as home:
            if scripts := [attempt for attempt in attempts if isinstance(attempt, ByGuest)]:
                scene = self._scene(has, self._home_of_running())
                sign = secrets.token_hex(8)
                parts = [f"(\n{attempt.script(scene)}\n) 2>&1\nprintf '\\n%s\\n' {sign}\n" for attempt in scripts]
                said = self._by_guest("".join(parts), _RUN_S).split(f"\n{sign}\n".encode())
                return (scene, [Evidence(part) for part in said[:-1]]) if len(said) == len(scripts) + 1 else None
            programs = [attempt for attempt in attempts if isinstance(attempt, ByCode | ByGuestCode)]
            in_guest = isinstance(programs[0], ByGuestCode)
            scene = self._scene(has, self._home_of_running() if in_guest else home)
            evidences = self._run_programs(scene, programs, in_guest=in_guest)
            return None if evidences is None else (scene, evidences)

    def _made(self, attempt: Attempt, has: frozenset[Needs]) -> tuple[Scene, Evidence]:
        if isinstance(attempt, ByRestart):
            return self._restarted(attempt, has)
        if isinstance(attempt, ByGuest):
            with self._own_machine(attempt):
                scene = self._scene(has, self._home_of_running())
                with measuring(attempt, scene) as measured:
                    output = self._by_guest(attempt.script(scene), _ATTEMPT_S)
                return scene, Evidence(output, measured=measured())
        assert isinstance(attempt, ByCode | ByGuestCode)
        with self._private_home() as home:
            in_guest = isinstance(attempt, ByGuestCode)
            scene = self._scene(has, self._home_of_running() if in_guest else home)
            evidences = self._run_programs(scene, [attempt], in_guest=in_guest)
        if evidences is None:
            raise HostError(f"{attempt.name}: its program did not come to its end:\n{self._last_words}")
        return scene, evidences[0]

    def _run_programs(
        self, scene: Scene, attempts: Sequence[ByCode | ByGuestCode], *, in_guest: bool
    ) -> list[Evidence] | None:
        """Each is a section; None if one has no report."""
        program = Program(os.urandom(16))
        sections = []
        for attempt in attempts:
            with program.section() as made:
                attempt.program(scene, program)
            sections += made
        with measuring(attempts[0], scene) as measured:
            if in_guest:
                output = self._by_guest(_RUN_PROGRAM, _ATTEMPT_S, program.elf())
            else:
                self._canaries.log.unlink(missing_ok=True)
                options = [word.replace("@LOG@", str(scene.canaries.log)) for word in attempts[0].options]
                output = self._launch(program.elf(), scene, ["--ephemeral", *options])
        reports = [program.report(section, output) for section in sections]
        self._last_words = output[-2000:].decode(errors="replace")
        evidences = [
            Evidence(report.output, report.results, measured())
            for report in reports
            if report is not None and report.results is not None
        ]
        return evidences if len(evidences) == len(sections) else None

    def _restarted(self, attempt: ByRestart, has: frozenset[Needs]) -> tuple[Scene, Evidence]:
        where = Path(tempfile.mkdtemp(dir=self._canaries.states))
        cow = where / "cow"
        try:
            with self._private_home() as home:
                scene = replace(self._scene(has, home), state=str(cow))
                program = Program(os.urandom(16))
                with program.section() as made:
                    attempt.plant(scene, program)
                output = self._launch(program.elf(), scene, ["--cow", str(cow)])
                report = program.report(made[0], output)
                if report is None or report.results is None:
                    raise HostError(f"{attempt.name}: its program did not come to its end:\n{output[-2000:]!r}")
            if attempt.script:
                return scene, Evidence(self._booted_again(cow, attempt))
            with self._private_home() as home:
                again = self._launch(Program(os.urandom(16)).elf(), replace(scene, home=str(home)), ["--cow", str(cow)])
            return scene, Evidence(again)
        finally:
            shutil.rmtree(where, ignore_errors=True)

    def _booted_again(self, cow: Path, attempt: ByRestart) -> bytes:
        machine = self._started(cow=cow)
        try:
            machine.wait_up(attempt.patience_s)
            return machine.exec(attempt.script, timeout_s=_ATTEMPT_S).stdout
        except MachineError:  # refused, or of no use any more: what it said is all that there is
            return "\n".join(machine.console.lines()).encode()
        finally:
            machine.close()

    def _by_guest(self, script: str, timeout_s: float, stdin: bytes | None = None) -> bytes:
        said = bytearray()

        def keep(block: bytes | memoryview) -> None:
            said.extend(block[: max(0, _KEPT - len(said))])

        try:
            self._running().exec(script, timeout_s=timeout_s, stdin=stdin, on_stdout=keep, on_stderr=keep)
        except MachineError:  # it hangs, or has killed itself: that is its own affair
            self._end_machine()
        return bytes(said)

    def _launch(self, kernel: bytes, scene: Scene, options: Sequence[str]) -> bytes:
        """Run the launcher as it is, but for the kernel; what it and the program say."""
        linux = self._code_bundle / "linux"
        linux.unlink(missing_ok=True)
        linux.write_bytes(kernel)
        linux.chmod(0o755)
        argv = [str(self._code_bundle / "run"), "--runtime", scene.home, *self._options, *options]
        self._check_abort()
        child = self._launcher = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
            env={"PATH": process.environment()["PATH"]}, start_new_session=True, pass_fds=self._cables,
        )  # fmt: skip
        try:
            output, _ = child.communicate(timeout=_RUN_S)
        except subprocess.TimeoutExpired:
            output = b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            self._launcher = None
            sweep(Path(scene.home))
        return output

    @contextlib.contextmanager
    def _private_home(self) -> Iterator[Path]:
        home = Path(tempfile.mkdtemp(prefix="umlm-", dir=runtime_base())).resolve()
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _check_abort(self) -> None:
        if self._aborted:
            raise HostError("the attempts were ended")

    # --- the machine ----------------------------------------------------------------------------------------

    def _running(self, *more: str) -> Machine:
        if self._machine is None or not self._machine.is_running():
            self._end_machine()
            self._machine = self._started(*more)
            self._machine.wait_up(_UP_S)
        return self._machine

    def _started(self, *more: str, cow: Path | None = None) -> Machine:
        self._check_abort()
        options = [word for word in self._options if word != "--allow-root"] + list(more)
        return Machine.start(
            self._bundle, ephemeral=cow is None, cow=cow, allow_root=self._allow_root, options=options,
            arguments=self._arguments, descriptors=self._cables,
        )  # fmt: skip

    def _home_of_running(self) -> Path:
        return self._running().mconsole_path.parents[2]

    @contextlib.contextmanager
    def _own_machine(self, attempt: ByGuest) -> Iterator[None]:
        if not attempt.alone:
            yield
            return
        self._end_machine()
        self._canaries.log.unlink(missing_ok=True)
        self._running(*(word.replace("@LOG@", str(self._canaries.log)) for word in attempt.options))
        try:
            yield
        finally:
            self._end_machine()

    def _end_machine(self) -> None:
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.close()

    def _what_it_has(self) -> frozenset[Needs]:
        has: set[Needs] = {"share"} if self._numbers else set()
        has |= {"writable share"} if "rw" in self._numbers else set()
        said = self._running().exec("cat /proc/filesystems; [ ! -e /sys/class/net/vec0 ] || echo vec0").stdout
        has |= {"hostfs"} if re.search(rb"\bhostfs$", said, re.MULTILINE) else set()
        has |= {"network device"} if said.endswith(b"vec0\n") else set()
        has |= {"data disk"} if self._recipe.get("disk") else set()
        has |= {"writable root"} if self._recipe["image"]["kind"] not in ("squashfs", "erofs") else set()
        has |= {"limit of processes"} if self._limits.processes is not None else set()
        if not Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
            has.add("core files of its own (core_pattern is a pipe)")
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
            limits=self._limits, image=str(self._bundle / "root.img"),
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


def _companion(attempt: Attempt) -> str:
    """Attempts that follow each other and have this in common can share a start."""
    together = isinstance(attempt, Live) and not attempt.alone
    return type(attempt).__name__ if together else attempt.name


def _row(attempt: Attempt, verdict: Verdict, seen: str) -> Row:
    return Row(attempt.name, attempt.group, attempt.tries, verdict, seen)
