"""A command in the Landlock sandbox: what it reaches, how it ends, and that nothing of it stays."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import oddhosts
import pytest
from helperkit import ALLOW, PROGRAMS, TOO_OLD, compiled, refused, run, until, with_word

from umlbuild.plan.helper import FLAGS

CREATE_RULESET = 444
"""Number of landlock_create_ruleset."""


@pytest.fixture
def word() -> Iterator[str]:
    """A word for command lines; no process that has it may outlive the test."""
    made = f"jailtest-{secrets.token_hex(8)}"
    yield made
    try:
        assert until(lambda: not with_word(made))
    finally:
        for pid in with_word(made):
            os.kill(pid, signal.SIGKILL)


def sh(jail: Path, script: str, *rules: str | Path, word: str = "x") -> subprocess.CompletedProcess[str]:
    return run(jail, "landlock", *PROGRAMS, *rules, "--", "/bin/sh", "-c", script, word)


def test_files(jail: Path, tmp_path: Path) -> None:
    for name in ("ro", "rw", "out", "rx"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"this is {name}\n")
    (tmp_path / "rx" / "run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "ro" / "run").write_text("#!/bin/sh\necho ran\n")
    for name in ("rx", "ro"):
        (tmp_path / name / "run").chmod(0o755)
    (tmp_path / "one").write_text("one\n")
    script = f"""
    cd {tmp_path}
    cat ro/file rw/file out/file
    echo changed >ro/file; rm ro/file; echo x >ro/new; echo x >out/new; rm out/file; mv rw/file out/moved; ls out
    ln out/file rw/stolen; mknod rw/device c 1 3; mknod rw/disk b 8 0
    echo changed >one; echo more >>one; rm one; mv one two
    ro/run; rx/run
    echo new >rw/new; mkdir rw/sub; mv rw/new rw/sub/moved; ln -s x rw/link; mkfifo rw/fifo
    """
    done = sh(jail, script, "--ro", tmp_path / "ro", "--rw", tmp_path / "rw", "--rw", tmp_path / "one", "--rx",
              tmp_path / "rx")  # fmt: skip
    assert done.stdout == "this is ro\nthis is rw\nran\n", done
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {
        "ro", "ro/file", "ro/run", "rx", "rx/file", "rx/run", "out", "out/file", "one",
        "rw", "rw/file", "rw/sub", "rw/sub/moved", "rw/link", "rw/fifo",
    }  # fmt: skip
    assert (tmp_path / "ro" / "file").read_text() == "this is ro\n"
    assert (tmp_path / "one").read_text() == "changed\nmore\n"


def test_what_it_is(jail: Path, tmp_path: Path) -> None:
    (tmp_path / "filter").write_bytes(ALLOW)
    done = sh(jail, "cat /proc/self/status; cat /proc/self/stat", "--filter", tmp_path / "filter")
    status = dict(line.split(":\t") for line in done.stdout.splitlines() if ":\t" in line)
    # Only who may (CAP_SETPCAP) can empty the bounding set; no_new_privs keeps others from what is in it.
    sets = ["CapPrm", "CapEff", "CapInh", "CapAmb", *(["CapBnd"] if os.geteuid() == 0 else [])]
    assert {int(status[name], 16) for name in sets} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    session = done.stdout.splitlines()[-1].rpartition(")")[2].split()[3]
    assert int(session) != os.getsid(0)


@pytest.mark.parametrize("status", [0, 1, 7, 121, 125, 255])
def test_its_status_is_ours(jail: Path, status: int) -> None:
    assert sh(jail, f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV])
def test_the_signal_that_ended_it_is_in_our_status(jail: Path, number: int) -> None:
    assert sh(jail, f"kill -{int(number)} $$").returncode == 128 + number


REACHES = """
import os, socket, sys
pid, name, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def attempt(what, call):
    try:
        call()
    except OSError as problem:
        print(what, problem.errno)
    else:
        print(what, "done")
attempt("signal", lambda: os.kill(pid, 0))
attempt("parent", lambda: os.kill(os.getppid(), 9))
attempt("own", lambda: os.kill(os.getpid(), 0))
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0" + name))
attempt("tcp", lambda: socket.socket().connect(("127.0.0.1", port)))
attempt("listen", lambda: socket.socket().bind(("127.0.0.1", 0)))
"""


def test_what_it_reaches_besides_files(jail: Path) -> None:
    name = f"jailtest-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket() as tcp:
        abstract.bind(f"\0{name}")
        abstract.listen()
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        script = [sys.executable, "-c", REACHES, str(os.getpid()), name, str(tcp.getsockname()[1])]
        home = Path(sys.executable).resolve().parents[1]
        places = [word for path in (home, sys.prefix) for word in ("--rx", str(path))]
        done = run(jail, "landlock", *PROGRAMS, *places, "--", *script)
        assert done.stdout.split("\n") == [
            "signal 1", "parent 1", "own done", "abstract 1", "tcp 13", "listen 13", "",
        ], done  # fmt: skip


LEAVES = {
    "a child": "sleep 100 & :",
    "a child in another session": "setsid sleep 100 & :",
    "a grandchild": "(sleep 100 & sleep 100 &) & sleep 0.1",
    "one that refuses to end": "(trap '' TERM HUP INT; sleep 100; sleep 100) & :",
    "one that is stopped": "sleep 100 & kill -STOP $!",
    "many": "i=0; while [ $i -lt 50 ]; do (setsid sleep 100 &) & i=$((i+1)); done; sleep 0.1",
    "those that multiply": "f() { sleep 0.01; setsid sh -c \"$1\" x \"$1\" & }; "
    "p='sleep 0.02; setsid sh -c \"$1\" \"$0\" \"$1\" &'; setsid sh -c \"$p\" \"$0\" \"$p\" & sleep 0.3",
}


@pytest.mark.parametrize("name", LEAVES)
def test_what_it_leaves_is_ended(jail: Path, word: str, name: str) -> None:
    """stdout is read to its end, which a process that is left would hold open."""
    began = time.monotonic()
    script = LEAVES[name].replace("sleep 100", f"sh -c 'sleep 100; :' {word}")
    done = sh(jail, f"exec 3>&1; {script}\nexit 7", word=word)
    assert done.returncode == 7 and time.monotonic() - began < 15
    assert not with_word(word)


def started(jail: Path, script: str, word: str, *rules: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A command that has said "ready"."""
    child = subprocess.Popen(
        [*prefix, str(jail), "landlock", *PROGRAMS, *rules, "--", "/bin/sh", "-c", script, word],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        out, _ = child.communicate(timeout=10)
    finally:
        child.kill()
        child.wait()
    return child.returncode, out


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"])
def test_signals_are_passed_on(jail: Path, word: str, name: str) -> None:
    child = started(jail, f"trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done", word)
    child.send_signal(getattr(signal, f"SIG{name}"))
    assert ended(child) == (9, f"got {name}\n")


def test_it_ends_with_our_parent(jail: Path, word: str) -> None:
    script = "(setsid sleep 100 &) ; echo ready; sleep 100"
    child = started(jail, script, word, prefix=("/bin/sh", "-c", '"$@"; :', "sh"))
    child.kill()
    child.wait(5)
    assert until(lambda: not with_word(word))
    assert child.communicate(timeout=5)[0] == ""  # so nothing holds its stdout


def test_it_ends_with_us(jail: Path, word: str) -> None:
    child = started(jail, "echo ready; exec sleep 100", word)
    child.kill()
    assert ended(child)[0] == -signal.SIGKILL


def test_a_held_descriptor(jail: Path, word: str) -> None:
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as other:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = subprocess.run(
            [jail, "landlock", *PROGRAMS, "--hold", str(file.fileno()), "--", "/bin/sh", "-c", "ls /proc/self/fd"],
            pass_fds=(file.fileno(), other.fileno()), capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
        assert str(file.fileno()) not in done.stdout.split() and str(other.fileno()) in done.stdout.split()


@pytest.mark.parametrize(("kind", "taken"), [
    (socket.SOCK_DGRAM, False), (socket.SOCK_SEQPACKET, True), (socket.SOCK_STREAM, True),
])  # fmt: skip
def test_a_datagram_socket_is_refused(jail: Path, kind: socket.SocketKind, taken: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        number = theirs.fileno()
        done = run(jail, "landlock", *PROGRAMS, "--", "/bin/true", pass_fds=(number,))
    if taken:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        refused(done, f"descriptor {number} is a unix datagram socket", "SOCK_SEQPACKET")


def test_kernels_without_it(jail: Path, tmp_path: Path) -> None:
    for words in (("check",), ("landlock", *PROGRAMS, "--", "/bin/echo", "started")):
        argv = oddhosts.forbidding(CREATE_RULESET, [str(jail), *words])
        refused(run(*argv), "Landlock ABI 0", "none", "needs 6", "Linux 6.12", status=TOO_OLD)
    assert run(jail, "check").returncode == 0
    newer = compiled(tmp_path, [*FLAGS, "-DABI_NEEDED=99"])
    refused(run(newer, "check"), "Landlock ABI ", "needs 99", status=TOO_OLD)
    refused(run(newer, "landlock", *PROGRAMS, "--", "/bin/echo", "started"), "needs 99", status=TOO_OLD)
