"""`umlbuild run|exec|ps|stop`: machines for people. Exit codes are the launcher's (see `run --help` of a bundle)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from umlbuild.errors import HostError, UserError

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


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
        "NAME: run the command in the machine that `run --detach` started under this name.",
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
    parser.add_argument("--allow-root", action="store_true", help="start it although you are root")


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
    argv += ["--allow-root"] * options.allow_root
    sys.stdout.flush()
    return os.execv(argv[0], [*argv, "--", *options.arguments])


def _detach(options: argparse.Namespace) -> int:
    from umlbuild.runtime import instance, supervisor

    name = instance.check_name(options.name or options.bundle.resolve().name)
    supervisor.start(
        supervisor.Orders(
            name=name, bundle=str(options.bundle.resolve()), up_s=options.wait, memory=options.memory,
            ephemeral=options.ephemeral or None, cow=str(options.cow.absolute()) if options.cow else None,
            timeout_s=options.timeout, reboot=not options.no_reboot, allow_root=options.allow_root,
            arguments=tuple(options.arguments),
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
    request |= {"env": env, "cwd": options.cwd}
    answer = instance.call(options.target, request, timeout_s + 60, _write(1), _write(2))
    return _status(answer)


def _exec_bundle(options: argparse.Namespace, env: dict[str, str], timeout_s: int) -> int:
    from umlbuild.runtime.machine import Machine

    # As with ^C: leave through the machine's end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Machine.start(
        Path(options.target), memory=options.memory, ephemeral=None if options.cow else True, cow=options.cow,
        allow_root=options.allow_root,
    ) as machine:  # fmt: skip
        machine.wait_up(options.wait)
        return machine.exec(
            options.command, timeout_s=timeout_s, env=env, cwd=options.cwd,
            on_stdout=_write(1), on_stderr=_write(2),
        ).status  # fmt: skip


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
