"""A web server in this process that can break a connection: what a download meets."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = 1 << 18
"""A download loses at most one block of what came before the break; umlbuild.host.fetch reads such ones."""


@dataclass
class Server:
    """One server on the loopback interface."""

    url: str = ""
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of each request, in order."""
    cut_once_at: int = 0
    """Break the first answer after so many bytes of its body; 0: never."""


def resumed_near(ranges: list[str | None], cut: int) -> bool:
    """Whether there were two requests, the second for what the first did not bring (but for one last block)."""
    if len(ranges) != 2 or ranges[0] is not None or ranges[1] is None:
        return False
    start = int(ranges[1].removeprefix("bytes=").removesuffix("-"))
    return cut - _BLOCK < start <= cut


@contextlib.contextmanager
def serving(directory: Path, *, cut_once_at: int = 0, ranges: bool = True, drips: bool = False) -> Iterator[Server]:
    """Serve the files of a directory; without `ranges` every answer is the whole file, with `drips` byte by byte."""
    server = Server(cut_once_at=cut_once_at)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            server.ranges.append(asked)
            path = directory / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            body = path.read_bytes()
            found = re.fullmatch(r"bytes=(\d+)-", asked or "") if ranges else None
            start = int(found[1]) if found else 0
            self.send_response(206 if found else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = len(body)
            if server.cut_once_at:
                end, server.cut_once_at = server.cut_once_at, 0
            if drips:
                with contextlib.suppress(OSError):
                    for at in range(start, end):
                        self.wfile.write(body[at : at + 1])
                        time.sleep(0.02)
            else:
                self.wfile.write(body[start:end])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server.url = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join(30)
