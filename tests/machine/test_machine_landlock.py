"""Machines in the Landlock sandbox, looked at from both sides; also where user namespaces are forbidden."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bundles
import oddhosts
import pytest
from bundles import started
from test_machine_jail import status_of, statuses, uml_processes

from umlbuild.runtime.failures import MachineError
from umlbuild.runtime.machine import Machine
from umlbuild.runtime.mconsole import MconsoleError

pytestmark = [pytest.mark.boot, pytest.mark.build, pytest.mark.timeout(1800)]

KERNELS = {"6.1": lambda: bundles.PREBUILT, "7.x": bundles.source_7}
NEEDS_NAMESPACES = pytest.mark.skipif(bool(oddhosts.why_not()), reason=oddhosts.why_not())
CREATE_RULESET = 444


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No memory, no private directory and no writes to be forgotten outlive a test; places of its own tell."""
    with tempfile.TemporaryDirectory(prefix="ul-", dir="/tmp") as own, \
            tempfile.TemporaryDirectory(prefix="ul-", dir="/dev/shm") as memory:  # fmt: skip
        places = [Path(own, "run"), Path(own, "tmp"), Path(memory)]
        Path(own).chmod(0o755)
        for place in places:
            place.mkdir(exist_ok=True)
            place.chmod(0o755)
        for name, place in zip(("XDG_RUNTIME_DIR", "TMPDIR", "UMLBUILD_MEMORY_DIR"), places, strict=True):
            monkeypatch.setenv(name, str(place))
        yield
        deadline = time.monotonic() + 5  # a janitor is not waited for
        while any(list(place.iterdir()) for place in places) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [path for place in places for path in place.iterdir()] == []


def landlocked(name: str, kernel: str, project: Path, image: str = "ext4", sandbox: str = "landlock") -> Path:
    data = bundles.recipe(name, KERNELS[kernel](), "busybox", image, launch={"sandbox": sandbox})
    return bundles.build(data, project)


@pytest.mark.parametrize("kernel", KERNELS)
def test_it_boots_and_has_nothing_of_the_host(kernel: str, tmp_path: Path) -> None:
    with started(landlocked(f"locked-{kernel[0]}", kernel, tmp_path)) as machine:
        rows = list(statuses(uml_processes(machine)))
        assert rows
        for status in rows:
            assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")} == {0}
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert machine.exec("cat", stdin=b"by the disk" * 10000).stdout == b"by the disk" * 10000
        assert machine.exec("cat", stdin=b"and again").stdout == b"and again"
        with pytest.raises(MconsoleError, match="this machine has no mconsole: its sandbox"):
            machine.mconsole("version")
        mail = machine.mconsole_path.parents[2] / "box" / "mail"
        assert (mail.stat().st_size, mail.stat().st_blocks) == (4 << 30, 0)
        os.truncate(mail, 1 << 20)
        with pytest.raises(MachineError, match="too much for a machine without mconsole: 1 MiB fit"):
            machine.exec("cat", stdin=bytes(2 << 20))
        assert machine.exec("cat", stdin=b"still").stdout == b"still"
        outcome = machine.stop()
        assert (outcome.kind, outcome.status) == ("exit", 0), machine.console.lines()


ESCAPES = """
mount -t hostfs none /mnt -o {up} 2>/dev/null || mount -t hostfs none /mnt -o hostfs={up} || exit 9
ls /mnt && echo listed
cat /mnt{place}/secret && echo read
echo x >/mnt{place}/secret; echo x >/mnt{place}/made; rm /mnt{place}/secret; mkdir /mnt{place}/directory
mv /mnt{place}/secret /mnt{place}/moved; ln /mnt{place}/secret /mnt{place}/linked; ln -s x /mnt{place}/symlink
chmod 666 /mnt{place}/secret; chown 1 /mnt{place}/secret; touch -d '2001-02-03 04:05' /mnt{place}/secret
stat -c 'seen with %s bytes' /mnt{place}/secret
"""


@pytest.mark.parametrize("kernel", KERNELS)
def test_hostfs_leads_nowhere(kernel: str, tmp_path: Path, open_place: Path) -> None:
    """But what a file is can be seen: Landlock has no right for that, as docs/security.md says."""
    (open_place / "place").mkdir(mode=0o777)
    (open_place / "place").chmod(0o777)
    secret = open_place / "place" / "secret"
    secret.write_text("the secret\n")
    secret.chmod(0o666)
    before = secret.stat()
    shares = [{"host": str(open_place), "guest": "/srv/x"}]  # so that the kernel has hostfs
    (open_place / "shared").mkdir()
    data = bundles.recipe(f"locked-share-{kernel[0]}", KERNELS[kernel](), "busybox", "ext4", share=shares,
                          launch={"sandbox": "landlock"})  # fmt: skip
    with started(bundles.build(data, tmp_path), "--share", f"/srv/x={open_place / 'shared'}") as machine:
        script = ESCAPES.format(up="/../../../../../..", place=secret.parent)
        done = machine.exec(script)
    assert done.stdout.decode() == f"seen with {before.st_size} bytes\n", done
    assert [path.name for path in secret.parent.iterdir()] == ["secret"]
    after = secret.stat()
    assert secret.read_text() == "the secret\n"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("kernel", "init", "suite"),
    [
        ("6.1", "busybox", "bookworm"),
        ("7.x", "systemd", "bookworm"),
        pytest.param("7.x", "busybox", "trixie", marks=pytest.mark.slow),  # mount(8) with the newer calls
        pytest.param("6.1", "busybox", "trixie", marks=pytest.mark.slow),
    ],
)
def test_shares(kernel: str, init: str, suite: str, tmp_path: Path, open_place: Path) -> None:
    for name in ("ro", "rw"):
        (open_place / name).mkdir()
        (open_place / name).chmod(0o777)
        (open_place / name / "file").write_text(f"this is {name}\n")
        (open_place / name / "file").chmod(0o666)
    shares = [
        {"host": str(open_place / "ro"), "guest": "/srv/ro"},
        {"host": "/nonexistent/as/built", "guest": "/srv/rw", "writable": True},
    ]
    source = {"source": {"kind": "prebuilt", "suite": "bookworm"}} if kernel == "6.1" else bundles.source_7()
    data = bundles.recipe(f"locked-shares-{init}-{kernel[0]}", source, init, "ext4", share=shares,
                          launch={"sandbox": "landlock"}, rootfs={"suite": suite})  # fmt: skip
    with started(bundles.build(data, tmp_path), "--share", f"/srv/rw={open_place / 'rw'}") as machine:
        assert machine.exec("cat /srv/ro/file /srv/rw/file").stdout == b"this is ro\nthis is rw\n"
        assert machine.exec("ls /srv/ro").stdout == b"file\n"
        machine.exec("mount -o remount,rw /srv/ro; echo x >/srv/ro/file; rm /srv/ro/file; echo x >/srv/ro/new")
        assert machine.exec(
            "cd /srv/rw && echo new >new && mkdir -p a/b && mv new a/b/moved && ln -s x link && echo more >>file"
            " && echo cut >cut && echo c >cut && rm link"
        ).ok
        refused = machine.exec("cd /srv/rw && chmod 600 file || chown 1 file || touch -d 2001-02-03 file")
        assert not refused.ok and b"not permitted" in refused.stderr
        machine.exec("cp /bin/cat /srv/rw/setid; chmod 6755 /srv/rw/setid; mknod /srv/rw/null c 1 3")
    assert [path.name for path in (open_place / "ro").iterdir()] == ["file"]
    assert (open_place / "ro" / "file").read_text() == "this is ro\n"
    assert (open_place / "rw" / "a" / "b" / "moved").read_text() == "new\n"
    assert (open_place / "rw" / "file").read_text() == "this is rw\nmore\n"
    assert (open_place / "rw" / "cut").read_text() == "c\n"
    for path in (open_place / "rw").rglob("*"):
        assert path.is_dir() or (path.is_file() and not path.stat().st_mode & 0o6000), path


def test_root_is_dropped(tmp_path: Path, open_place: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root drops to nobody")
    built = landlocked("locked-6", "6.1", tmp_path)
    bundle = open_place / "dropped"
    subprocess.run(["cp", "-a", "--sparse=always", built, bundle], check=True, timeout=120)
    with started(bundle, allow_root=False) as machine:
        assert machine.exec("echo x >/written").ok and machine.exec("cat", stdin=b"in").stdout == b"in"
        assert {status["Uid"].split()[0] for status in statuses(uml_processes(machine))} == {"65534"}
        assert machine.stop().kind == "exit"


def test_what_the_guest_wrote_is_kept(tmp_path: Path) -> None:
    bundle = landlocked("locked-7", "7.x", tmp_path)
    for script in ("echo kept >/kept", "cat /kept"):
        with Machine.start(bundle, cow=tmp_path / "kept.cow", allow_root=True, timeout_s=200) as machine:
            machine.wait_up(100)
            done = machine.exec(script)
            assert done.ok, done
            assert machine.stop().kind == "exit"
    assert done.stdout == b"kept\n"


def test_nothing_outlives_a_launcher_that_was_killed(tmp_path: Path) -> None:
    """6.1 has helper processes that nobody would end; `nothing_left` sees what its directory's janitor misses."""
    machine = started(landlocked("locked-6", "6.1", tmp_path))
    try:
        processes = uml_processes(machine)
        assert len(processes) > 2
        os.kill(machine.pid, 9)
        deadline = time.monotonic() + 10
        while any(lives(entry) for entry in processes) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [entry for entry in processes if lives(entry)]
    finally:
        machine.close()


def lives(process: Path) -> bool:
    try:
        return not status_of(process)["State"].startswith("Z")
    except OSError:
        return False


INIT = {"kind": "script", "command": ["/bin/sh", "-c", "exit 7"]}


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="up-", dir="/tmp") as name:
        for directory in ("run", "tmp", "home", "cache"):
            Path(name, directory).mkdir(mode=0o700)
        yield Path(name)


def on_a_host(preamble: str, argv: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    names = {"XDG_RUNTIME_DIR": "run", "TMPDIR": "tmp", "HOME": "home", "XDG_CACHE_HOME": "cache"}
    env = {"PATH": os.environ["PATH"], **{name: str(place / where) for name, where in names.items()}}
    done = oddhosts.run_on(preamble, argv, env=env, timeout_s=120)
    assert not list((place / "run").iterdir()) and not list((place / "tmp").iterdir())
    return done


@NEEDS_NAMESPACES
def test_without_user_namespaces(tmp_path: Path, place: Path) -> None:
    """It works where bubblewrap cannot, and that one says so."""
    found = {}
    for sandbox in ("landlock", "bwrap"):
        data = bundles.recipe(f"odd-{sandbox}", bundles.PREBUILT, INIT, "ext4",
                              launch={"memory": "128M", "sandbox": sandbox})  # fmt: skip
        bundle = bundles.build(data, tmp_path)
        found[sandbox] = on_a_host(oddhosts.NO_USER_NAMESPACES, [str(bundle / "run"), "--ephemeral"], place)
    assert found["landlock"].returncode == 7, found["landlock"].stderr
    assert found["bwrap"].returncode == 125
    for word in ("user.max_user_namespaces = 0", "fix: ", "sysctl", 'launch.sandbox = "landlock"'):
        assert word in found["bwrap"].stderr


@NEEDS_NAMESPACES
def test_without_landlock(tmp_path: Path, place: Path) -> None:
    """Nothing weaker is taken."""
    data = bundles.recipe("odd-landlock", bundles.PREBUILT, INIT, "ext4",
                          launch={"memory": "128M", "sandbox": "landlock"})  # fmt: skip
    bundle = bundles.build(data, tmp_path)
    argv = oddhosts.forbidding(CREATE_RULESET, [str(bundle / "run"), "--ephemeral"])
    done = on_a_host("", argv, place)
    assert done.returncode == 125 and done.stdout == ""
    for word in ("Landlock ABI 0", "needs 6", "fix: ", "lsm=", 'launch.sandbox = "bwrap"'):
        assert word in done.stderr, done.stderr


def test_a_tap(tmp_path: Path) -> None:
    """The one transport besides `fd` that takes no socket; in a network of the test's own."""
    network = [{"transport": {"kind": "tap", "ifname": "tap0"}, "address": "10.9.9.2/24"}]
    data = bundles.recipe("locked-tap", bundles.PREBUILT, "busybox", "ext4", network=network,
                          launch={"sandbox": "landlock"}, rootfs={"packages": ["iputils-ping"]})  # fmt: skip
    bundle = bundles.build(data, tmp_path)
    namespaces = ["unshare", "--user", "--map-root-user", "--net", "--"]
    program = str(Path(__file__).with_name("tap_in_netns.py"))
    done = oddhosts.run_plain([*namespaces, sys.executable, program, str(bundle)], timeout_s=300)
    if "unshare failed" in done.stderr or "/dev/net/tun" in done.stderr:
        pytest.skip(f"no network namespace with a tap here: {done.stderr.strip()}")
    assert done.returncode == 0 and "2 received" in done.stdout, done.stdout + done.stderr
