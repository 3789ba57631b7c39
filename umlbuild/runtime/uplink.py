"""slirp4netns for a hub: the outside for all its machines. Run exactly as a bundle's launcher runs it.

Source: `umlbuild/launcher/uplinks/user.sh` and `sandboxes/bwrap.sh`, whose functions are called here.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from umlbuild.errors import HostError

NOBODY = "nobody"
_START_S = 20.0
_PACKAGES = {"slirp4netns": "slirp4netns", "perl": "perl-base", "bwrap": "bubblewrap", "setpriv": "util-linux"}


@contextlib.contextmanager
def started(mtu: int, helper: Path) -> Iterator[socket.socket]:
    """The connection to it, one frame per message; `helper` is the launcher's. Raises: HostError."""
    for program, package in _PACKAGES.items():
        if shutil.which(program) is None:
            raise HostError(f"{program} is not installed, and the uplink needs it", f"apt-get install {package}")
    with tempfile.TemporaryDirectory(prefix="umlhub-", dir="/tmp") as name:
        home = Path(name)
        net = home / "net"
        (net / "slirp").mkdir(parents=True)
        (net / "resolv.conf").touch()
        shutil.copyfile(helper, home / "jail")  # the store may be closed to nobody
        (home / "jail").chmod(0o755)
        if os.geteuid() == 0:
            account = pwd.getpwnam(NOBODY)
            for path in (home, home / "jail", net, net / "slirp", net / "resolv.conf"):
                os.chown(path, account.pw_uid, account.pw_gid)
        process = subprocess.Popen(
            ["sh", "-c", _script(home, mtu)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=home
        )
        try:
            _wait(net, process)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
                line.settimeout(_START_S)
                line.connect(os.fspath(net / "uml"))
                yield line
        finally:
            process.kill()
            process.wait()
            time.sleep(0.05)  # its children die with it, but are still in their directory


def _wait(net: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while not (net / "ready").exists():
        if (net / "why").exists():
            raise HostError(f"no uplink: {(net / 'why').read_text().strip()}", "try it by hand: slirp4netns --version")
        if process.poll() is not None or time.monotonic() > deadline:
            raise HostError("no uplink: slirp4netns cannot be started", "try it by hand: slirp4netns --version")
        time.sleep(0.02)


def _script(home: Path, mtu: int) -> str:
    launcher = resources.files("umlbuild.launcher")
    drop = "setpriv --pdeathsig KILL"
    if os.geteuid() == 0:
        account = pwd.getpwnam(NOBODY)
        drop += f" --reuid={account.pw_uid} --regid={account.pw_gid} --clear-groups --inh-caps=-all --bounding-set=-all"
    values = {
        "NAME": "hub", "UPLINK": "0", "UPLINK_FORWARDS": "", "UPLINK_LOOPBACK": "shut",
        "UPLINK_PROGRAM": (launcher / "uplinks" / "user.pl").read_text(), "inst": os.fspath(home),
        "bundle": os.fspath(home),
        "uid": str(os.geteuid()), "drop": drop, "bwrap": shutil.which("bwrap") or "",
        "slirp": shutil.which("slirp4netns") or "",
    }  # fmt: skip
    return "\n".join([
        "umask 077",
        *(f"{name}={shlex.quote(value)}" for name, value in values.items()),
        (launcher / "sandboxes" / "bwrap.sh").read_text(),
        (launcher / "uplinks" / "user.sh").read_text(),
        "{ ulimit -c 0 && ulimit -n 1024; } 2>/dev/null",
        f'uplink_jail "$slirp" --target-type=bess --enable-seccomp --mtu={mtu} --disable-host-loopback '
        '"$inst/net/slirp/frames"',
    ])  # fmt: skip
