"""What can go wrong with a running machine, each in its own words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from umlbuild.errors import UserError


class MachineError(UserError):
    """Something about a running machine."""

    exit_code = 1


class MachineEnded(MachineError):
    """The machine is not running any more, and something was still wanted of it."""

    def __init__(self, name: str, doing: str, how: str, status: int, tail: Sequence[str] = ()) -> None:
        self.how = how
        self.exit_code = status or 1
        lines = [f"{name}: {doing}: the machine has ended: {how}", *(f"  | {line}" for line in tail)]
        super().__init__("\n".join(lines))


class NotUp(MachineError):
    """The machine did not get as far as its agent in time."""

    def __init__(self, name: str, timeout_s: float, got: str, tail: Sequence[str]) -> None:
        lines = [f"{name}: not up after {timeout_s:g} s ({got})", *(f"  | {line}" for line in tail)]
        super().__init__(
            "\n".join(lines), "allow it more time, or see whether its init starts /usr/lib/umlbuild/agent"
        )


class GuestTimeout(MachineError):
    """A command in the guest took too long and was ended; what it had written is kept here."""

    exit_code = 124

    def __init__(self, command: Sequence[str] | str, timeout_s: float, stdout: bytes, stderr: bytes) -> None:
        self.timeout_s = timeout_s
        self.stdout = stdout
        self.stderr = stderr
        text = command if isinstance(command, str) else shlex.join(command)
        super().__init__(f"{text}: not done in the guest after {timeout_s:g} s, ended")


class AgentLost(MachineError):
    """The guest's agent does not answer as it should; nothing more can be asked of it."""

    def __init__(self, doing: str, why: str) -> None:
        super().__init__(f"{doing}: the guest's agent is lost: {why}", "stop the machine and start it again")


class GuestFailed(MachineError):
    """A service of ours (copying) failed in the guest."""

    def __init__(self, doing: str, status: int, stderr: bytes) -> None:
        self.status = status
        text = stderr.decode(errors="replace").strip()
        super().__init__(f"{doing}: exit status {status}" + (f": {text}" if text else ""))
