"""What attempts aim at, on the host: files, sockets, a process and shares that nothing but the sandbox protects.

All of it is open to every user of the host, so that an attempt that fails has failed at the sandbox and not at a
file's mode. It lies in one private-named directory below /tmp, is watched here, and is removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from umlbuild.host import sparse

NOBODY = 65534
"""As whom the launcher runs UML when root starts it."""
_WATCHED = ("/", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/run", "/etc", "/root", "/home")
_TRAP = """trap 'echo hit >>"$1"' USR1 URG; echo ready >"$2"; while [ -d "/proc/$3" ]; do sleep 0.1; done"""
"""A process that notes signals, for as long as the one that makes the attempts lives."""


class Canaries:
    """The host's side of all attempts; a context manager."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        """In the name of everything that an attempt makes: so it is told apart from what others make meanwhile."""
        self.home = Path(tempfile.mkdtemp(prefix=f"umlattack-{self.token}-", dir="/tmp")).resolve()
        self.secret_text = f"umlbuild-canary-{secrets.token_hex(16)}"
        self.secret = self.home / "secret"
        self.victim = self.home / "victim"
        self.open = self.home / "open"
        self.shares = {"ro": self.home / "share-ro", "rw": self.home / "share-rw"}
        self.stream = self.home / "stream.sock"
        self.datagram = self.home / "datagram.sock"
        self.in_share = self.shares["ro"] / "datagram.sock"
        self.fifo = self.shares["ro"] / "fifo"
        self.log = self.home / "log"
        """Of `run --log`."""
        self.states = self.home / "states"
        """Where machines keep what outlives a start."""
        self._cow_like = self.home / "cow-like"
        self._precious = self.home / "precious"
        self.abstract = f"umlattack-{self.token}"
        self.heard: set[str] = set()
        """What came in on any of the sockets."""
        self.pid = 0
        self.port = 0
        self._stack = contextlib.ExitStack()
        self._streams: list[socket.socket] = []
        self._datagrams: list[socket.socket] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.home, ignore_errors=True)
            stack.callback(self._remove_strays)
            self._files()
            self._sockets(stack)
            self._process(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- what happened to them --------------------------------------------------------------------------

    def listen(self) -> None:
        """Take in what the sockets and the fifo have got."""
        for listener in self._streams:
            with contextlib.suppress(BlockingIOError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(0.5)
                        with contextlib.suppress(OSError):
                            self._note(connection.recv(4096))
        for inbox in self._datagrams:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._note(inbox.recv(65536))
        with contextlib.suppress(BlockingIOError):
            self._note(os.read(self._fifo_fd, 65536))

    def was_signalled(self) -> bool:
        """Whether the process got a signal, or is gone."""
        time.sleep(0.15)  # a shell runs its trap when its sleep ends
        return (self.open / "signals").exists() or self._child.poll() is not None

    def was_made(self, name: str) -> list[str]:
        """Where on the host something is that an attempt made under a name of its own (`token` and `name`)."""
        wanted = f"{self.token}-{name}"
        places = [*map(Path, _WATCHED), self.home, self.open, *self.shares.values(), Path(os.environ.get("HOME", "/"))]
        found: set[str] = set()
        for place in places:
            with contextlib.suppress(OSError):
                found.update(f"{place}/{entry}" for entry in os.listdir(place) if entry.startswith(wanted))
        return sorted(found)

    def was_changed(self) -> str:
        """How the victim differs from what it was; it is mended."""
        try:
            info = self.victim.lstat()
            content = self.victim.read_bytes() if stat.S_ISREG(info.st_mode) else b"?"
        except OSError as problem:
            self._make_victim()
            return f"is gone ({problem.strerror})"
        changes = [
            name for name, differs in (
                ("content", content != b"untouched\n"), ("mode", stat.S_IMODE(info.st_mode) != 0o666),
                ("owner", info.st_uid != self._victim_info.st_uid),
                ("time", info.st_mtime_ns != self._victim_info.st_mtime_ns), ("links", info.st_nlink != 1),
            ) if differs
        ]  # fmt: skip
        if changes:
            self.victim.unlink()
            self._make_victim()
        return ", ".join(changes)

    def dangerous(self, share: str) -> list[str]:
        """What in a share would be dangerous to a user of the host: devices, setuid files, others' files; removed."""
        found: list[str] = []
        for path in sorted(self.shares[share].iterdir()):
            info, before = path.lstat(), len(found)
            if stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode):
                found.append(f"{path.name}: a device")
            if info.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(info.st_mode):
                found.append(f"{path.name}: set-uid or set-gid ({stat.filemode(info.st_mode)}, user {info.st_uid})")
            if info.st_uid not in (os.getuid(), NOBODY):
                found.append(f"{path.name}: owned by user {info.st_uid}")
            if len(found) > before:
                with contextlib.suppress(OSError):
                    path.unlink()
        return found

    # --- made when an attempt asks for them -----------------------------------------------------------------

    def forge(self, size: int, mtime: int, like: Path | None = None) -> Path:
        """A file of this size and time that has the secret at its end; else what is in `like`, if that is given."""
        path = self.home / f"forged-{size}-{mtime}"
        if not path.exists():
            if like is not None:
                sparse.copy(like, path)
                path.chmod(0o666)
            with path.open("r+b" if like is not None else "wb") as file:
                file.seek(size - 4096)
                file.write(self.secret_text.encode().ljust(4096, b"\n"))
            path.chmod(0o666)
            os.utime(path, (mtime, mtime))
        return path

    def cow_like(self, content: bytes) -> Path:
        """A host file that happens to look like a COW file."""
        self._cow_like.write_bytes(content)
        self._cow_like.chmod(0o666)
        self._cow_like_was = content
        return self._cow_like

    def cow_like_was_changed(self) -> bool:
        """Whether somebody wrote into that file."""
        return self._cow_like.read_bytes() != self._cow_like_was

    def precious(self) -> Path:
        """A directory with a file, which every user may remove."""
        self._precious.mkdir(exist_ok=True)
        (self._precious / "file").touch()
        self._precious.chmod(0o777)
        return self._precious

    def lost_precious(self) -> bool:
        """Whether the file in that directory is gone."""
        return not (self._precious / "file").exists()

    # --- making them --------------------------------------------------------------------------------------

    def _files(self) -> None:
        self.home.chmod(0o755)
        self.secret.write_text(self.secret_text + "\n")
        self.secret.chmod(0o644)
        self._make_victim()
        for directory in (self.open, self.states, *self.shares.values()):
            directory.mkdir()
            directory.chmod(0o777)
        for name, share in self.shares.items():
            (share / "hello").write_text(f"share {name}\n")
            (share / "to-canaries").symlink_to(self.home)
            (share / "to-root").symlink_to("/")
            (share / "up").symlink_to("../../../../../../../../../..")
            (share / "chain").symlink_to("chain-2")
            (share / "chain-2").symlink_to("chain-3")
            (share / "chain-3").symlink_to("to-canaries")
        os.mkfifo(self.fifo)
        self.fifo.chmod(0o666)
        self._fifo_fd = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _make_victim(self) -> None:
        self.victim.write_text("untouched\n")
        self.victim.chmod(0o666)
        if os.getuid() == 0:
            os.chown(self.victim, NOBODY, NOBODY)
        self._victim_info = self.victim.stat()

    def _sockets(self, stack: contextlib.ExitStack) -> None:
        stack.callback(os.close, self._fifo_fd)
        streams: tuple[tuple[int, str | tuple[str, int]], ...] = (
            (socket.AF_UNIX, str(self.stream)), (socket.AF_UNIX, f"\0{self.abstract}"),
            (socket.AF_INET, ("127.0.0.1", 0)),
        )  # fmt: skip
        for family, address in streams:
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.bind(address)
            listener.listen(64)
            listener.setblocking(False)
            self._streams.append(listener)
        self.port = self._streams[-1].getsockname()[1]
        for where in (str(self.datagram), str(self.in_share), f"\0{self.abstract}.datagram"):
            inbox = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            inbox.bind(where)
            inbox.setblocking(False)
            self._datagrams.append(inbox)
        for path in (self.stream, self.datagram, self.in_share):
            path.chmod(0o777)

    def _process(self, stack: contextlib.ExitStack) -> None:
        """A process of the user as whom UML runs: what stands between them is the sandbox only."""
        signals, ready = self.open / "signals", self.open / "ready"
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        self._child = subprocess.Popen(
            ["/bin/sh", "-c", _TRAP, "canary", str(signals), str(ready), str(os.getpid())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "CANARY": self.secret_text}, start_new_session=True, **user,  # type: ignore[call-overload]
        )  # fmt: skip
        stack.callback(self._end_child)
        self.pid = self._child.pid
        deadline = time.monotonic() + 10
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ready.exists()

    def _end_child(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def _note(self, message: bytes) -> None:
        self.heard.update(message.decode(errors="replace").split("\n"))

    def _strays(self) -> Iterator[int]:
        """Processes that an attempt left: they have the token in a name or an argument."""
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and int(entry.name) not in (os.getpid(), self.pid):
                with contextlib.suppress(OSError):
                    words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                    if words[0] == f"survivor-{self.token}".encode():
                        yield int(entry.name)

    def survivors(self) -> list[int]:
        """Processes of attempts that live on."""
        return list(self._strays())

    def _remove_strays(self) -> None:
        for pid in self._strays():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in self.was_made(""):
            with contextlib.suppress(OSError):
                os.unlink(path)
