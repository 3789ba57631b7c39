"""`umlbuild run|exec|ps|stop`: machines for people. Exit codes are the launcher's (see `run --help` of a bundle)."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from umlbuild.errors import HostError, UserError

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

STDIN_LIMIT = 64 << 20
"""Bytes of a piped or redirected stdin that `exec` hands to the guest's command, whole, before it starts."""
_STDIN_NOTE_S = 3.0
_BLOCK = 1 << 20


def add_parsers(verbs: Verbs) -> None:
    """Mount the four verbs; each sets `verb`, a function from options to the exit code."""
    run = verbs.add_parser(
        "run", help="start a bundle's machine", usage="umlbuild run [options] BUNDLE [-- kernel arguments]"
    )
    run.add_argument("bundle", type=Path, help="a bundle's directory, e.g. dist/hello")
    run.add_argument("--detach", action="store_true", help="leave it running in the background; see ps, exec, stop")
    run.add_argument("--name", help="of the machine: for ps, exec and stop, and for its kept writes")
    run.add_argument("--wait", type=float, default=120, metavar="S", help="for it to come up, with --detach (120)")
    run.add_argument("--no-reboot", action="store_true", help="a reboot of the guest ends the machine")
    _machine_options(run)
    run.add_argument("arguments", nargs="*", help="more kernel arguments, after --")
    run.set_defaults(verb=_run)

    execute = verbs.add_parser(
        "exec", help="run a command in a machine", usage="umlbuild exec [options] BUNDLE|NAME -- COMMAND…",
        description="BUNDLE (a directory): start it with throw-away disks, run the command, stop it. "
        "NAME: run the command in the machine that `run --detach` started under this name. "
        "A piped or redirected stdin (up to 64 MiB) is read to its end before the command "
        "starts; if it is a terminal the command has /dev/null.",
    )  # fmt: skip
    execute.add_argument("target", help="a bundle's directory or a running machine's name")
    execute.add_argument("--cwd", help="directory in the guest (/)")
    execute.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    execute.add_argument("--wait", type=float, default=120, metavar="S", help="for a bundle to come up (120)")
    _machine_options(execute, timeout="of the command in seconds (3600)")
    execute.add_argument("command", nargs="+")
    execute.set_defaults(verb=_exec)

    ps = verbs.add_parser("ps", help="machines that run in the background")
    ps.set_defaults(verb=_ps)

    stop = verbs.add_parser("stop", help="power a machine off")
    stop.add_argument("name")
    stop.add_argument("--timeout", type=int, default=60, metavar="S", help="for a clean end, before force (60)")
    stop.set_defaults(verb=_stop)


def _machine_options(parser: argparse.ArgumentParser, timeout: str = "end it after S seconds") -> None:
    parser.add_argument("--memory", metavar="SIZE", help="e.g. 256M or 1G")
    parser.add_argument("--cow", type=Path, metavar="FILE", help="keep the guest's writes there")
    parser.add_argument("--ephemeral", action="store_true", help="forget the guest's writes at the end")
    parser.add_argument("--timeout", type=int, metavar="S", help=timeout)
    parser.add_argument("--share", action="append", default=[], metavar="DIR=PATH", help="another PATH for a share")
    parser.add_argument("--port", action="append", default=[], metavar="OLD=NEW", help="another port of the host")
    parser.add_argument("--user", metavar="NAME", help="as whom it runs when root starts it (nobody)")
    parser.add_argument("--allow-root", action="store_true", help="let it run as root when you are root")
    parser.add_argument("--no-sandbox", action="store_true", help="for bundles that are built without one")


def _launcher_options(options: argparse.Namespace) -> list[str]:
    """What the launcher understands under the same name."""
    words = ["--no-sandbox"] * options.no_sandbox + ["--allow-root"] * options.allow_root
    words += ["--user", options.user] if options.user else []
    words += [word for port in options.port for word in ("--port", port)]
    return words + [word for share in options.share for word in ("--share", share)]


def _run(options: argparse.Namespace) -> int:
    """In the foreground: we become the launcher."""
    launcher = options.bundle.resolve() / "run"
    if not os.access(launcher, os.X_OK):
        raise HostError(
            f"{options.bundle}: is not a bundle: it has no launcher `run`", "build it: doit build recipe=…"
        )
    if options.detach:
        return _detach(options)
    argv = [str(launcher)]
    for option in ("memory", "cow", "name", "timeout"):
        if (value := getattr(options, option)) is not None:
            argv += [f"--{option}", str(value)]
    argv += ["--ephemeral"] * options.ephemeral + ["--no-reboot"] * options.no_reboot
    argv += _launcher_options(options)
    sys.stdout.flush()
    return os.execv(argv[0], [*argv, "--", *options.arguments])


def _detach(options: argparse.Namespace) -> int:
    from umlbuild.runtime import instance, supervisor

    name = instance.check_name(options.name or options.bundle.resolve().name)
    supervisor.start(
        supervisor.Orders(
            name=name, bundle=str(options.bundle.resolve()), up_s=options.wait, memory=options.memory,
            ephemeral=options.ephemeral or None, cow=str(options.cow.absolute()) if options.cow else None,
            timeout_s=options.timeout, reboot=not options.no_reboot, arguments=tuple(options.arguments),
            options=tuple(_launcher_options(options)),
        )
    )  # fmt: skip
    print(name)
    return 0


def _exec(options: argparse.Namespace) -> int:
    env = dict(_assignment(text) for text in options.env)
    timeout_s = options.timeout or 3600
    if "/" in options.target or Path(options.target, "run").exists():
        return _exec_bundle(options, env, timeout_s)
    from umlbuild.runtime import instance

    request = {"verb": "exec", "command": options.command, "timeout_s": timeout_s}
    with _stdin(time.monotonic() + timeout_s) as stdin:
        if stdin:
            stdin.flush()
        path = f"/proc/{os.getpid()}/fd/{stdin.fileno()}" if stdin else None
        request |= {"env": env, "cwd": options.cwd, "stdin": path}
        answer = instance.call(options.target, request, timeout_s + 60, _write(1), _write(2))
    return _status(answer)


def _exec_bundle(options: argparse.Namespace, env: dict[str, str], timeout_s: int) -> int:
    from umlbuild.runtime.machine import Machine

    with _stdin(time.monotonic() + timeout_s) as stdin, Machine.start(
        Path(options.target), memory=options.memory, ephemeral=None if options.cow else True, cow=options.cow,
        options=_launcher_options(options),
    ) as machine:  # fmt: skip
        machine.wait_up(options.wait)
        return machine.exec(
            options.command, timeout_s=timeout_s, env=env, cwd=options.cwd, stdin=stdin,
            on_stdout=_write(1), on_stderr=_write(2),
        ).status  # fmt: skip


@contextlib.contextmanager
def _stdin(deadline: float) -> Iterator[IO[bytes] | None]:
    """All of our stdin, in a file; None if it is closed, empty, or a device (a terminal, /dev/null).

    Raises: UserError for more than STDIN_LIMIT, or one that does not end by `deadline` (time.monotonic).
    """
    from umlbuild.runtime import tree

    try:
        mode = os.fstat(0).st_mode
    except OSError:
        mode = 0
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        yield None
        return
    with tree.scratch() as file:
        size = 0
        for block in _blocks(deadline):
            size += len(block)
            if size > STDIN_LIMIT:
                raise UserError(
                    f"stdin: has more than {STDIN_LIMIT >> 20} MiB, which is all that exec passes on",
                    "put it into the image (rootfs.files) or on a data disk ([[disk]]), or pass </dev/null",
                )
            file.write(block)
        yield file if size else None


def _blocks(deadline: float) -> Iterator[bytes]:
    """What stdin holds, up to its end; a person who waits for it is told so once."""
    told = time.monotonic() + _STDIN_NOTE_S
    while True:
        now = time.monotonic()
        if now >= deadline:
            raise UserError("stdin: did not end in time", "pass </dev/null if the command reads nothing")
        if select.select([0], [], [], max(0.0, min(told, deadline) - now))[0]:
            if not (block := os.read(0, _BLOCK)):
                return
            yield block
        elif time.monotonic() >= told:
            told = float("inf")
            print("umlbuild: waiting for the end of stdin (</dev/null if the command reads nothing)", file=sys.stderr)


def _ps(_options: argparse.Namespace) -> int:
    from umlbuild.runtime import instance

    rows = [("NAME", "PID", "UP", "BUNDLE")]
    for facts in instance.running():
        minutes, seconds = divmod(int(time.time() - facts.started), 60)
        rows.append((facts.name, str(facts.pid), f"{minutes}m{seconds:02}s", facts.bundle))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]))
    return 0


def _stop(options: argparse.Namespace) -> int:
    from umlbuild.runtime import instance

    request = {"verb": "stop", "timeout_s": options.timeout}
    answer = instance.call(options.name, request, options.timeout + 60, _write(1), _write(2))
    if not instance.wait_free(options.name, 10):
        raise UserError(f"{options.name}: its machine has ended, its supervisor has not", "umlbuild ps has its PID")
    return _status(answer)


def _status(answer: dict[str, object]) -> int:
    if "message" in answer:
        error = UserError(str(answer["message"]), str(answer.get("hint", "")))
        code = answer.get("exit_code")
        error.exit_code = code if isinstance(code, int) else 1
        raise error
    status = answer.get("status")
    assert isinstance(status, int)
    return status


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or not name.isascii():
        raise UserError(f"--env {text}: not NAME=VALUE")
    return name, value


def _write(fd: int) -> Callable[[bytes], None]:
    """A sink that writes all it gets to a descriptor."""

    def sink(block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(fd, view) :]

    return sink
