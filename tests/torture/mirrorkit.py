"""A mirror of what a vendored yard has fetched, on the loopback, that can be told to misbehave."""

from __future__ import annotations

import http.server
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from torturekit import Yard


@dataclass
class Mirror:
    """Files by their path in the pool; `harm` sees each answer before it is sent."""

    files: dict[str, Path]
    harm: Callable[[Answer], None] = lambda _answer: None
    asked: dict[str, int] = field(default_factory=dict)
    """How often, by path, since the last `be`."""
    sent: int = 0
    """Bytes, since the last `be`."""
    url: str = ""

    def be(self, harm: Callable[[Answer], None]) -> None:
        """Misbehave in this way from now on."""
        self.harm, self.asked, self.sent = harm, {}, 0

    @property
    def env(self) -> dict[str, str]:
        return {"UMLBUILD_MIRROR": self.url, "UMLBUILD_SECURITY_MIRROR": self.url}


@dataclass
class Answer:
    """What is about to be sent."""

    path: str
    attempt: int
    """0 for the first request of this path."""
    data: bytes
    status: int = 200
    only: int | None = None
    """Bytes after which the connection is closed."""
    stall_s: float = 0
    """Silence after those bytes."""
    length: int | None = None
    """What is said of the length; None: the truth."""


@contextmanager
def mirror(yard: Yard) -> Iterator[Mirror]:
    """A mirror of a yard's lock and downloads."""
    lock = tomllib.loads((yard.home / f"{yard.name}.lock.toml").read_text())
    pins = [pin for rows in lock.values() if isinstance(rows, list) for pin in rows if "path" in pin and "size" in pin]
    kept = {path.stem: path.read_bytes() for path in (yard.cache / "downloads").rglob("*.deb")}
    store = {f"/{pin['path']}": kept[pin["sha256"]] for pin in pins}
    state = Mirror({})
    lock_ = threading.Lock()
    ending = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 120

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            whole = store.get(self.path)
            if whole is None:
                self.send_error(404)
                return
            with lock_:
                attempt = state.asked.get(self.path, 0)
                state.asked[self.path] = attempt + 1
            begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            answer = Answer(self.path, attempt, whole[begin:], 206 if begin else 200)
            state.harm(answer)
            if answer.status == 0:
                self.close_connection = True
                return
            if answer.status >= 400:
                self.send_error(answer.status)
                return
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.data) if answer.length is None else answer.length))
            if answer.status == 206:
                self.send_header("Content-Range", f"bytes {begin}-{len(whole) - 1}/{len(whole)}")
            self.end_headers()
            data = answer.data if answer.only is None else answer.data[: answer.only]
            with suppress(OSError):
                self.wfile.write(data)
                self.wfile.flush()
            with lock_:
                state.sent += len(data)
            end = time.monotonic() + answer.stall_s
            while time.monotonic() < end and not ending.wait(0.1):
                pass
            if answer.only is not None:
                self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}/"
        try:
            yield state
        finally:
            ending.set()
            server.shutdown()
            thread.join(10)
