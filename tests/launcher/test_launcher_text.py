"""The launcher's text, and what it decides without starting anything (--dry-run, refusals)."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from umlbuild.plan.launch import MARKS, PARTS, kernel_words, render, template
from umlbuild.specs.launch import Disk, LaunchSettings, Share, Uplink

AGENT = Path(__file__).resolve().parents[2] / "umlbuild" / "launcher" / "guest" / "agent.sh"
SIZE = 1 << 20
MTIME = 1_700_000_123


def settings(**changes: Any) -> LaunchSettings:
    given: dict[str, Any] = {
        "name": "hello", "image_id": "0123456789ab", "image_mtime": MTIME, "image_size": SIZE,
        "memory_mib": 64, "kernel_version": "7.3.4", "cmdline": ("root=/dev/ubda", "rw", "init=/sbin/init"),
    }  # fmt: skip
    return LaunchSettings(**{**given, **changes})


def bundle(directory: Path, **changes: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    image = directory / "root.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    os.utime(image, (MTIME, MTIME))
    kernel = directory / "linux"
    kernel.write_text("#!/bin/sh\nexit 99\n")
    kernel.chmod(0o755)
    run = directory / "run"
    run.write_text(render(settings(**changes)))
    run.chmod(0o755)
    return directory


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "UMLBUILD_ALLOW_ROOT": "1", "TERM": "dumb",
        "UMLBUILD_MEMORY_DIR": "/tmp",
    }  # fmt: skip


def launch(
    directory: Path, env: dict[str, str], *options: str, shell: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*shell, str(directory / "run"), *options], env=env, capture_output=True, text=True, timeout=30,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def words(directory: Path, env: dict[str, str], *options: str) -> list[str]:
    done = launch(directory, env, "--dry-run", *options)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line)[0] for line in done.stdout.splitlines()]


SHARED = settings(
    shares=(Share(host="/srv/a b", guest="/mnt/a"),), filters=("filters/vec0.bpf",), filtered_fds=(5,),
    egress=(("vec1", "tap0"),), uplink=Uplink(unit=0, vector="mac=02:00:00:00:00:01", mtu=9000),
)  # fmt: skip
PLAIN = settings()


@pytest.mark.parametrize(
    "text",
    [*(render(SHARED.model_copy(update={"sandbox": kind})) for kind in PARTS), render(PLAIN), AGENT.read_text()],
    ids=[*PARTS, "plain", "agent"],
)
def test_shellcheck(text: str, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(text)
    done = subprocess.run(
        # SC2034: each sandbox uses some of the settings; SC2154: names of shares are put together.
        # SC2016: UPLINK_PROGRAM is perl.
        ["shellcheck", "-s", "sh", "-e", "SC2016,SC2034,SC2154", str(script)],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 0, done.stdout


def test_render_fills_the_mark_only() -> None:
    text = render(settings())
    for mark in MARKS:
        assert template().count(mark) == 1 and mark not in text
    assert "NAME=hello\n" in text and "CMDLINE='console=tty0 root=/dev/ubda rw init=/sbin/init'\n" in text


def test_same_settings_same_text() -> None:
    assert render(settings()) == render(settings())
    assert render(settings()) != render(settings(image_id="ba9876543210"))


def test_command_line(tmp_path: Path, env: dict[str, str]) -> None:
    got = words(bundle(tmp_path / "b", sandbox="none"), env, "--memory", "1G", "--no-reboot", "--no-sandbox")
    uml = got[got.index("/tmp/uml-XXXXXXXX/linux") :]
    assert uml[1:] == [
        "mem=1024M", "umid=m", "uml_dir=/tmp/uml-XXXXXXXX/u/", "quiet", "con=null", "ssl=null", "con0=null,fd:2",
        "con1=fd:0,fd:1", "ubd0=/tmp/uml-XXXXXXXX/root.cow,/tmp/uml-XXXXXXXX/root.img", "noreboot",
        "console=tty0", "root=/dev/ubda", "rw", "init=/sbin/init",
    ]  # fmt: skip
    assert got[:5] == ["env", "-i", "PATH=/usr/bin:/bin", "TERM=dumb", "TMPDIR=/tmp"]


def test_disks_and_read_only_root(tmp_path: Path, env: dict[str, str]) -> None:
    disks = (
        Disk(unit=1, file="disk1.img", id="aaaaaaaa"),
        Disk(unit=3, file="ro.img", id="bbbbbbbb", flags="rd", copy_on_start=False),
    )
    got = words(bundle(tmp_path / "b", disks=disks, root_read_only=True), env)
    assert [word for word in got if word.startswith("ubd")] == [
        "ubd0rd=/tmp/uml-XXXXXXXX/root.img", "ubd3rd=/tmp/uml-XXXXXXXX/disk3", "ubd1sd=/tmp/uml-XXXXXXXX/disk1",
    ]  # fmt: skip


def test_extra_words_come_before_inits_arguments(tmp_path: Path, env: dict[str, str]) -> None:
    directory = bundle(tmp_path / "b", cmdline=("init=/x", "--", "one", "it's two"))
    assert words(directory, env, "--", "loglevel=7", "a b'c")[-7:] == [
        "root=/dev/ubda", "init=/x", "loglevel=7", "a b'c", "--", "one", "it's two",
    ]  # fmt: skip


def test_console_and_root_are_named_before_inits_arguments() -> None:
    before, after = kernel_words(settings(cmdline=("init=/x", "--", "root=no")))
    assert before == ["console=tty0", "root=/dev/ubda", "init=/x"] and after == ["--", "root=no"]


@pytest.mark.parametrize("name", ["plain", "a b", "c,d:e", 'q"uote', "$(touch x)", "ünï", "-dash", "l\nine"])
def test_no_path_of_the_user_reaches_uml(tmp_path: Path, env: dict[str, str], name: str) -> None:
    directory = bundle(tmp_path / name)
    env["XDG_STATE_HOME"] = str(tmp_path / name / "state")
    for options in ((), ("--cow", str(tmp_path / name / "my,cow"))):
        got = words(directory, env, *options)
        uml = got[got.index("/tmp/uml-XXXXXXXX/linux") :]
        assert not [word for word in uml if str(tmp_path) in word]
    assert sorted(p.name for p in directory.iterdir()) == ["linux", "root.img", "run"]  # nothing was written


def test_dry_run_writes_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    before = set(Path("/tmp").glob("uml-*"))
    words(bundle(tmp_path / "b"), env)
    assert not (tmp_path / "home").exists()
    assert set(Path("/tmp").glob("uml-*")) <= before


def cow(path: Path, size: int, mtime: int, magic: bytes = b"OOOM") -> Path:
    path.write_bytes(magic + struct.pack(">IIQIII", 3, mtime, size, 512, 4096, 0) + bytes(4096))
    return path


REFUSALS = [
    (("--memory", "lots"), "--memory lots: not a size"),
    (("--memory", "512"), "--memory 512: not a size"),
    (("--memory", "4M"), "no Linux boots in that"),
    (("--memory", "0100M"), "not a size"),
    (("--memory", "900000G"), "MiB free, the guest's memory needs"),
    (("--timeout", "1h"), "not a number of seconds"),
    (("--frobnicate",), 'unknown argument "--frobnicate"'),
    (("word",), 'unknown argument "word"'),
    (("--memory",), "a value is missing"),
    (("--name", "../x"), "not a name"),
    (("--cow", "/nonexistent/x.cow"), "there is no directory /nonexistent"),
    (("--agent", "3"), "not an inherited descriptor"),
    (("--runtime", "/nonexistent"), "must be a directory of yours"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSALS)
def test_refusals(tmp_path: Path, env: dict[str, str], options: tuple[str, ...], sentence: str) -> None:
    done = launch(bundle(tmp_path / "b"), env, *options)
    assert done.returncode == 125 and sentence in done.stderr
    assert not done.stdout


def test_root_is_refused(tmp_path: Path, env: dict[str, str]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can try")
    del env["UMLBUILD_ALLOW_ROOT"]
    done = launch(bundle(tmp_path / "b", sandbox="none"), env, "--dry-run", "--no-sandbox")
    assert done.returncode == 125 and "you are root" in done.stderr and "--allow-root" in done.stderr
    assert launch(bundle(tmp_path / "b"), env, "--dry-run", "--allow-root").returncode == 0


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ((SIZE + 512, MTIME, b"OOOM"), "belongs to another image"),
        ((SIZE, MTIME + 1, b"OOOM"), "belongs to another image"),
        ((SIZE, MTIME, b"OOOX"), "is not a COW file"),
    ],
)
def test_foreign_cow_is_refused(
    tmp_path: Path, env: dict[str, str], header: tuple[int, int, bytes], sentence: str
) -> None:
    file = cow(tmp_path / "x.cow", *header)
    done = launch(bundle(tmp_path / "b"), env, "--dry-run", "--cow", str(file))
    assert done.returncode == 125 and sentence in done.stderr and str(file) in done.stderr and "fix:" in done.stderr


def test_fitting_cow_is_taken(tmp_path: Path, env: dict[str, str]) -> None:
    words(bundle(tmp_path / "b"), env, "--cow", str(cow(tmp_path / "x.cow", SIZE, MTIME)))


def test_image_that_lost_its_time(tmp_path: Path, env: dict[str, str]) -> None:
    directory = bundle(tmp_path / "b")
    os.utime(directory / "root.img", (1, 1))
    done = launch(directory, env, "--dry-run", "--cow", str(cow(tmp_path / "x.cow", SIZE, MTIME)))
    assert done.returncode == 125 and "lost its time stamp" in done.stderr and f"touch -d @{MTIME}" in done.stderr


def test_damaged_image(tmp_path: Path, env: dict[str, str]) -> None:
    directory = bundle(tmp_path / "b")
    os.truncate(directory / "root.img", 512)
    done = launch(directory, env, "--dry-run")
    assert done.returncode == 125 and "has 512 bytes and should have" in done.stderr


def test_no_home(tmp_path: Path, env: dict[str, str]) -> None:
    del env["HOME"]
    assert "HOME is not set" in launch(bundle(tmp_path / "b"), env, "--dry-run").stderr
    assert launch(bundle(tmp_path / "b"), env, "--dry-run", "--ephemeral").returncode == 0


def test_help_documents_the_exit_codes(tmp_path: Path, env: dict[str, str]) -> None:
    done = launch(bundle(tmp_path / "b"), env, "--help")
    assert done.returncode == 0
    for words_of_it in ("124 timeout", "125 refused", "126 the guest's kernel panicked", "--ephemeral", "--cow FILE"):
        assert words_of_it in done.stdout


def test_through_a_symlink_and_from_elsewhere(tmp_path: Path, env: dict[str, str]) -> None:
    bundle(tmp_path / "b")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "run").symlink_to("../b/run")
    words(tmp_path / "elsewhere", env)


@pytest.mark.parametrize("shell", [("dash",), ("bash", "--posix"), ("busybox", "sh")])
def test_other_shells(tmp_path: Path, env: dict[str, str], shell: tuple[str, ...]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} here")
    plain = words(bundle(tmp_path / "b"), env)
    done = launch(tmp_path / "b", env, "--dry-run", shell=shell)
    assert [shlex.split(line)[0] for line in done.stdout.splitlines()] == plain, done.stderr


def landlocked(directory: Path, **changes: Any) -> Path:
    """With a helper that finds Landlock, and a kernel that is a program of this host."""
    made = bundle(directory, sandbox="landlock", **changes)
    (made / "jail").write_text("#!/bin/sh\nexit 0\n")
    (made / "jail").chmod(0o755)
    return made


def test_what_landlock_lets_uml_have(tmp_path: Path, env: dict[str, str]) -> None:
    disks = (
        Disk(unit=1, file="disk1.img", id="aaaaaaaa"),
        Disk(unit=3, file="ro.img", id="bbbbbbbb", flags="rd", copy_on_start=False),
    )
    shares = (Share(host=str(tmp_path / "s"), guest="/a"), Share(host=str(tmp_path / "t"), guest="/b", writable=True))
    for share in shares:
        Path(share.host).mkdir()
    made = landlocked(tmp_path / "b", disks=disks, shares=shares, host_paths=("/dev/net/tun",))
    got = words(made, env)
    at = "/tmp/uml-XXXXXXXX"
    rules = got[got.index("landlock") + 1 : got.index("--")]
    assert got[got.index("--") + 1] == f"{at}/linux" and not [word for word in got if "mconsole" in word]
    assert sorted(zip(rules[::2], rules[1::2], strict=True)) == sorted([
        ("--filter", f"{made}/seccomp.bpf"), ("--rx", f"{at}/linux"), ("--ro", f"{at}/root.img"),
        ("--rw", f"{at}/root.cow"), ("--ro", f"{at}/box"), ("--rw", f"{at}/u"), ("--rwx", f"{at}/memory"),
        ("--rw", "/dev/null"), ("--ro", "/dev/random"), ("--rw", f"{at}/disk1"), ("--ro", f"{at}/disk3"),
        ("--ro", f"{at}/share/0"), ("--rw", f"{at}/share/1"), ("--dev", "/dev/net/tun"),
    ])  # fmt: skip


def test_landlock_without_its_helper(tmp_path: Path, env: dict[str, str]) -> None:
    done = launch(bundle(tmp_path / "b", sandbox="landlock"), env, "--dry-run")
    assert done.returncode == 125 and "jail: is not there" in done.stderr
    (tmp_path / "b" / "jail").write_text("#!/bin/sh\necho 'jail: this kernel has none' >&2; exit 121\n")
    (tmp_path / "b" / "jail").chmod(0o755)
    done = launch(tmp_path / "b", env, "--dry-run")
    assert done.returncode == 125 and ": this kernel has none\n  fix: " in done.stderr
    assert 'launch.sandbox = "bwrap"' in done.stderr


LOADER = "/lib64/ld-linux-x86-64.so.2"


def needs_glibc(kernel: Path, version: str) -> None:
    """Make a program ask for another version of the C library than it does: the name, and its hash (elf(5))."""
    def hashed(text: bytes) -> int:
        value = 0
        for byte in text:
            value = (value << 4) + byte
            value = (value ^ ((value & 0xF0000000) >> 24)) & 0x0FFFFFFF
        return value

    old, new = b"GLIBC_2.34", version.encode()
    data = kernel.read_bytes()
    assert len(old) == len(new) and old in data
    data = data.replace(old, new).replace(struct.pack("<I", hashed(old)), struct.pack("<I", hashed(new)))
    kernel.write_bytes(data)


def test_landlock_and_the_hosts_c_library(tmp_path: Path, env: dict[str, str]) -> None:
    directory = landlocked(tmp_path / "b", interpreter=LOADER)
    (directory / "lib").mkdir()
    for name in ("libc.so.6", "ld-linux-x86-64.so.2", "libgcc_s.so.1"):
        (directory / "lib" / name).write_text("the bundle's own, not used\n")
    (tmp_path / "x.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-o", directory / "linux", tmp_path / "x.c"], check=True, timeout=60)
    got = words(directory, env)
    rules = list(itertools.pairwise(got))
    assert {("--rx", LOADER), ("--ro", "/etc/ld.so.cache")} <= set(rules)
    assert {Path(path).name for option, path in rules if option == "--rx"} == {
        "linux", "libc.so.6", "ld-linux-x86-64.so.2", "libgcc_s.so.1", "xstate.so",
    }  # fmt: skip
    needs_glibc(directory / "linux", "GLIBC_2.99")
    done = launch(directory, env, "--dry-run")
    assert done.returncode == 125 and "C library is too old" in done.stderr and "GLIBC_2.99" in done.stderr
    assert 'fix: use launch.sandbox = "bwrap"' in done.stderr
    (directory / "lib" / "libabsent.so.7").write_text("")
    done = launch(directory, env, "--dry-run")
    assert done.returncode == 125 and "this host has no libabsent.so.7" in done.stderr and "fix: " in done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "has space"},
        {"name": "Ö"},
        {"image_id": "xyz"},
        {"cmdline": ("a\nb",)},
        {"cmdline": ("x" * 3001,)},
        {"cmdline": ('odd"quote',)},
        {"memory_mib": 8},
        {"disks": (Disk(unit=1, file="a", id="00000000"), Disk(unit=1, file="b", id="00000000"))},
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**changes)


@pytest.mark.parametrize(
    "disk", [{"unit": 15}, {"unit": 0}, {"file": "a/b"}, {"file": "a:b"}, {"flags": "x"}, {"flags": "ss"}]
)
def test_disks_that_cannot_be(disk: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Disk(**{"unit": 1, "file": "disk1.img", "id": "00000000", **disk})
