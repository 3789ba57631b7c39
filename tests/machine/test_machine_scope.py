"""The cgroup that systemd gives a machine, on a host that systemd really runs: a guest of ours is that host.

UML does not run within UML (it has no PTRACE_SYSEMU), so what is started there by the real launcher, in the real
sandbox, is a program that only sleeps.
"""

from __future__ import annotations

import os
from pathlib import Path

import bundles
import pytest
from bundles import started
from test_machine_matrix import run

from umlbuild.attack.program import Program
from umlbuild.kinds.sandboxes import seccomp
from umlbuild.plan.launch import render
from umlbuild.specs.launch import LaunchSettings

pytestmark = [pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800)]

SIZE = 1 << 20
MTIME = 1_700_000_000


def sleeper(directory: Path) -> Path:
    """A bundle whose kernel is a program that sleeps."""
    directory.mkdir()
    with (directory / "root.img").open("wb") as image:
        image.truncate(SIZE)
    os.utime(directory / "root.img", (MTIME, MTIME))
    program = Program(b"0123456789abcdef")
    program.sleep(6)
    (directory / "linux").write_bytes(program.elf())
    (directory / "seccomp.bpf").write_bytes(seccomp.program(sockets="none", share=False))
    settings = LaunchSettings(
        name="sleeper", image_id="0123456789ab", image_mtime=MTIME, image_size=SIZE, memory_mib=32, processes=77,
        kernel_version="0", cmdline=("root=/dev/ubda",), state="ephemeral",
    )  # fmt: skip
    (directory / "run").write_text(render(settings))
    for name in ("linux", "run"):
        (directory / name).chmod(0o755)
    return directory


def test_systemd_limits_a_machine_as_a_whole(tmp_path: Path) -> None:
    data = bundles.recipe(
        "scope-host", bundles.source_7(), "systemd", "ext4", rootfs={"packages": ["bubblewrap"]},
    )
    with started(bundles.build(data, tmp_path)) as host:
        host.copy_in(sleeper(tmp_path / "sleeper"), "/srv/sleeper")
        run(host, f"chmod 755 /srv/sleeper; touch -d @{MTIME} /srv/sleeper/root.img")
        # Without a HOME there is no cache, so nothing is measured first.
        launch = "env -u HOME /srv/sleeper/run {} </dev/null >/tmp/said 2>&1 & sleep 3"
        scopes = "/sys/fs/cgroup/system.slice/run-*.scope"
        look = f"cd {scopes} && cat memory.max pids.max memory.swap.max && wc -l <cgroup.procs"
        count = f"wait; ls -d {scopes} 2>/dev/null | wc -l"
        said = run(host, f"{launch.format('')}; {look}; {count}")
        memory, tasks, swap, processes, left = said.split()
        assert (int(memory), int(tasks), swap) == ((32 + 128) << 20, 77 + 16, "0")
        assert int(processes) >= 2  # bubblewrap and the program
        assert left == "0"
        assert run(host, f"{launch.format('--no-scope')}; {count}").strip() == "0"
        assert "0123456789abcdef" in run(host, "cat /tmp/said")  # it was really started
