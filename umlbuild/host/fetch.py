"""The only gate to the network (apt, which resolves and checks signatures, goes through `process`).

A download is resumed where it broke, tried again with back-off, and renamed into place only when its
sha256 is the promised one. Nothing waits for ever: connect and read time out, and so does the whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from umlbuild.errors import Cancelled, FetchError
from umlbuild.host import process

if TYPE_CHECKING:
    import requests

ATTEMPTS = 5
_CONNECT_S = 15
_READ_S = 60
_QUICK_S = 10
_BLOCK = 1 << 18
_FINAL = (401, 403, 404, 410)  # trying again would not help

Session: TypeAlias = "requests.Session"
"""Connections that are kept open."""

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all or 0)."""


@contextlib.contextmanager
def connections(at_once: int) -> Iterator[Session]:
    """Connections that are kept open for many downloads: a name is looked up once for each, not for each file."""
    import requests
    from requests.adapters import HTTPAdapter

    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=at_once))
        yield session


def download(
    url: str,
    dest: Path,
    *,
    sha256: str,
    size: int = 0,
    timeout_s: float = 3600,
    progress: Progress | None = None,
    backoff_s: float = 1.0,
    session: Session | None = None,
    attempts: int = ATTEMPTS,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Fetch `url` into `dest`; both the promised size (if given) and sha256 are checked.

    `session` is one of `connections`, for many files of one server.

    Raises: FetchError (gone, broken after all attempts, other bytes than promised: nothing is kept).
    """
    import requests  # 0.1 s to import: only builds that fetch pay for it

    deadline = time.monotonic() + timeout_s
    dest.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{dest.name}.", dir=dest.parent)
    os.close(fd)
    part = Path(name)
    try:
        with contextlib.ExitStack() as stack:
            session = session or stack.enter_context(requests.Session())
            for attempt in range(attempts):
                try:
                    _fetch_rest(session, url, part, deadline, progress, more=headers)
                    break
                except (requests.RequestException, OSError) as error:
                    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
                        raise
                    status = error.response.status_code if error.response is not None else 0
                    given_up = attempt == attempts - 1 or time.monotonic() > deadline
                    if given_up or status in _FINAL:
                        hint = "check the URL and the network"
                        raise FetchError(f"{url}: {_reason(error)}", hint) from error
                    time.sleep(min(backoff_s * 2**attempt, max(0.0, deadline - time.monotonic())))
        got_size = part.stat().st_size
        if size and got_size != size:
            raise FetchError(f"{url}: {got_size} bytes came, {size} were promised; nothing was kept")
        with part.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != sha256:
            raise FetchError(f"{url}: its sha256 is {got}, but {sha256} was promised; nothing was kept")
        part.chmod(0o644)
        part.rename(dest)
    finally:
        part.unlink(missing_ok=True)


def read(url: str, *, headers: Mapping[str, str] | None = None, limit: int = 1 << 20) -> bytes | None:
    """A small file at `url`, asked for once and not for long; None if the server has none.

    Raises: FetchError (no answer, refused, longer than `limit` bytes).
    """
    import requests

    try:
        with requests.get(url, headers=dict(headers or {}), stream=True, timeout=(_QUICK_S, _QUICK_S)) as answer:
            if answer.status_code in (404, 410):
                return None
            answer.raise_for_status()
            data = answer.raw.read(limit + 1, decode_content=True)
    except (requests.RequestException, OSError) as error:
        raise FetchError(f"{url}: {_words(error)}") from error
    if len(data) > limit:
        raise FetchError(f"{url}: is longer than {limit} bytes")
    return bytes(data)


def put(url: str, source: Path, *, headers: Mapping[str, str] | None = None) -> None:
    """Send a file by PUT. Raises: FetchError."""
    import requests

    try:
        with source.open("rb") as file:
            given = {"Content-Length": str(source.stat().st_size), **(headers or {})}
            with requests.put(url, data=file, headers=given, timeout=(_QUICK_S, _READ_S)) as answer:
                answer.raise_for_status()
    except (requests.RequestException, OSError) as error:
        raise FetchError(f"{url}: {_words(error)}") from error


def _words(error: Exception) -> str:
    import requests

    return _reason(error) if isinstance(error, requests.RequestException) else str(error)


def _fetch_rest(
    session: requests.Session,
    url: str,
    part: Path,
    deadline: float,
    progress: Progress | None,
    *,
    more: Mapping[str, str] | None,
) -> None:
    """Append what is missing of `url` to `part`."""
    import requests

    have = part.stat().st_size
    headers = {"Accept-Encoding": "identity", **(more or {})}
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(url, headers=headers, stream=True, timeout=(_CONNECT_S, _READ_S)) as answer:
        if answer.status_code == 416:  # the part is longer than the file: begin again
            os.truncate(part, 0)
            raise requests.ConnectionError("the server has another file than before")
        answer.raise_for_status()
        resumed = answer.status_code == 206
        length = int(answer.headers.get("Content-Length", 0))
        total = length + (have if resumed else 0) if length else 0
        with part.open("ab" if resumed else "wb") as file:
            for block in answer.iter_content(_BLOCK):
                if process.is_cancelled():
                    raise Cancelled(f"{url}: download ended, the build was told to stop")
                if time.monotonic() > deadline:
                    raise FetchError(f"{url}: the download took too long", "try again or use a nearer mirror")
                file.write(block)
                if progress:
                    progress(file.tell(), total)
            if total and file.tell() != total:
                raise requests.ConnectionError(f"the connection broke after {file.tell()} of {total} bytes")


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    text = str(error)
    with contextlib.suppress(IndexError, AttributeError):
        text = str(error.args[0].reason)
    return text
