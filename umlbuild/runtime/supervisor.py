"""The process that owns a detached machine and serves its name: `python -m umlbuild.runtime.supervisor ORDERS`.

ORDERS is JSON. It reports to its parent on stdout with one line (`{}` once the machine is up, or an error), then
lets go of all its standard streams. When the machine ends, for whatever reason, so does it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from umlbuild.errors import UserError
from umlbuild.runtime import instance
from umlbuild.runtime.failures import MachineError
from umlbuild.runtime.instance import Facts
from umlbuild.runtime.machine import Machine

_CLIENT_S = 30.0
"""How long a client may take to accept what it asked for."""


@dataclass(frozen=True)
class Orders:
    """What to start, and under which name."""

    name: str
    bundle: str
    up_s: float
    """Seconds that the machine may take to come up."""
    memory: str | None = None
    ephemeral: bool | None = None
    cow: str | None = None
    timeout_s: int | None = None
    reboot: bool = True
    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def start(orders: Orders) -> None:
    """Leave a supervisor running, whose machine is up.

    Raises: MachineError with what it reported.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "umlbuild.runtime.supervisor", json.dumps(orders.__dict__)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            # It keeps to up_s itself; this is for one that hangs.
            report = child.stdout.readline() if selector.select(orders.up_s + 60) else b""
        if not report:
            child.kill()
            raise MachineError(f"{orders.name}: its supervisor ended without a word")
        problem = json.loads(report)
        if problem:
            child.wait(30)
            error = MachineError(problem["message"], problem["hint"])
            error.exit_code = problem["exit_code"]
            raise error
        child.returncode = 0  # it goes on without us: do not wait for it


class Supervisor:
    """One machine and the socket of its name."""

    def __init__(self, machine: Machine, facts: Facts) -> None:
        self._machine = machine
        self._facts = facts
        self._ending = threading.Event()
        path = instance.socket_path(facts.name)
        path.unlink(missing_ok=True)  # the lock is ours, so this is a dead one's
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(os.fspath(path))
        path.chmod(0o600)
        self._listener.listen(16)
        self._listener.settimeout(0.5)
        self._path = path

    def serve(self) -> None:
        """Answer clients until the machine has ended or we are told to stop."""
        try:
            while self._machine.is_running() and not self._ending.is_set():
                with contextlib.suppress(TimeoutError):
                    client, _ = self._listener.accept()
                    threading.Thread(target=self._answer, args=(client,), daemon=True).start()
        finally:
            self._listener.close()
            self._path.unlink(missing_ok=True)

    def end(self) -> None:
        """Stop serving; the machine is then powered off."""
        self._ending.set()

    def _answer(self, client: socket.socket) -> None:
        with client:
            client.settimeout(_CLIENT_S)
            try:
                frame = instance.receive(client)
                if frame is None or frame[0] != b"R":
                    return
                request = json.loads(frame[1])
                assert isinstance(request, dict)
                answer = self._obey(client, request)
            except UserError as error:
                answer = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
            except (OSError, ValueError, AssertionError):
                return
            with contextlib.suppress(OSError):
                instance.send(client, b"X", json.dumps(answer).encode())

    def _obey(self, client: socket.socket, request: Mapping[str, object]) -> dict[str, object]:
        match request.get("verb"):
            case "exec":
                return {"status": self._exec(client, request)}
            case "stop":
                patience = request.get("timeout_s")
                outcome = self._machine.stop(power_off_s=patience if isinstance(patience, int) else 60)
                self._path.unlink(missing_ok=True)
                return {"kind": outcome.kind, "status": outcome.status}
            case verb:
                raise MachineError(f"{verb}: unknown request")

    def _exec(self, client: socket.socket, request: Mapping[str, object]) -> int:
        gone = threading.Event()

        def sink(letter: bytes) -> Callable[[bytes], None]:
            def pass_on(block: bytes) -> None:
                if not gone.is_set():
                    try:
                        instance.send(client, letter, block)
                    except OSError:
                        gone.set()

            return pass_on

        def cancelled() -> bool:
            # Not a bare recv: with a timeout set, Python waits for it even with MSG_DONTWAIT.
            if select.select([client], [], [], 0)[0]:
                try:
                    if client.recv(1, socket.MSG_PEEK) == b"":
                        gone.set()
                except OSError:
                    gone.set()
            return gone.is_set()

        command, timeout_s = request["command"], request["timeout_s"]
        assert isinstance(command, list) and isinstance(timeout_s, int | float)
        env, cwd = request.get("env"), request.get("cwd")
        assert isinstance(env, dict | None) and isinstance(cwd, str | None)
        with contextlib.ExitStack() as stack:
            # A file that the client, who is the same user, holds open until we have answered.
            path = request.get("stdin")
            assert isinstance(path, str | None)
            stdin = stack.enter_context(open(path, "rb")) if path else None
            return self._machine.exec(
                [str(word) for word in command], timeout_s=timeout_s, env=env, cwd=cwd, stdin=stdin,
                on_stdout=sink(b"O"), on_stderr=sink(b"E"), cancelled=cancelled,
            ).status  # fmt: skip


def main(text: str) -> None:
    """Start the machine, report, serve, clean up."""
    given = json.loads(text)
    orders = Orders(**{**given, "arguments": tuple(given["arguments"])})
    try:
        facts = Facts(orders.name, os.getpid(), orders.bundle, time.time())
        with instance.claim(facts), _machine(orders) as machine:
            machine.wait_up(orders.up_s)
            supervisor = Supervisor(machine, facts)
            signal.signal(signal.SIGTERM, lambda *_: supervisor.end())
            signal.signal(signal.SIGINT, lambda *_: supervisor.end())
            _report({})
            supervisor.serve()
    except UserError as error:
        _report({"message": error.message, "hint": error.hint, "exit_code": error.exit_code})


def _machine(orders: Orders) -> Machine:
    return Machine.start(
        Path(orders.bundle), name=orders.name, memory=orders.memory, ephemeral=orders.ephemeral,
        cow=Path(orders.cow) if orders.cow else None, timeout_s=orders.timeout_s, reboot=orders.reboot,
        arguments=orders.arguments, options=orders.options,
    )  # fmt: skip


def _report(what: Mapping[str, object]) -> None:
    """One line to the parent; after it nobody reads our streams."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(what).encode() + b"\n")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)


if __name__ == "__main__":
    main(sys.argv[1])
