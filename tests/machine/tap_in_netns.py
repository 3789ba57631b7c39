"""Run in user and network namespaces of its own: a machine with a tap there. python tap_in_netns.py BUNDLE"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from umlbuild.runtime.machine import Machine

COMMANDS = (
    "link set lo up", "tuntap add tap0 mode tap user 0", "addr add 10.9.9.1/24 dev tap0", "link set tap0 up",
)  # fmt: skip


def main(bundle: Path) -> None:
    for words in COMMANDS:
        subprocess.run(["ip", *words.split()], check=True, timeout=10)
    with Machine.start(bundle, ephemeral=True, allow_root=True, timeout_s=200) as machine:
        machine.wait_up(100)
        done = machine.exec("ip addr show vec0; ping -c 2 -W 5 10.9.9.1")
        print(done.stdout.decode(), done.stderr.decode())
        if not done.ok:
            print(*machine.console.lines(), sep="\n")
        sys.exit(done.status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
