"""The only gate to the network (apt, which resolves and checks signatures, goes through `process`).

A download is resumed where it broke, also by a later build; it is tried again with back-off, hashed while it comes,
and renamed into place only when its sha256 is the promised one. Nothing waits for ever: connect and read time out,
and so does the whole. Two builds that want the same file fetch it once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from umlbuild.errors import Cancelled, FetchError
from umlbuild.host import flock, offline, process

if TYPE_CHECKING:
    import requests

ATTEMPTS = 5
_CONNECT_S = 15
_READ_S = 60
_QUICK_S = 10
_ASK_S = 300
_BLOCK = 1 << 18
_POLL_S = 0.1
_FINAL = (401, 403, 404, 410)  # trying again would not help

Session: TypeAlias = "requests.Session"
"""Connections that are kept open."""

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all or 0)."""

Again = Callable[[int, int], None]
"""Called before each further attempt with (its number, attempts in all)."""


class Gone(FetchError):
    """The server answers that it has no such file (404, 410)."""


class Unreachable(FetchError):
    """No server answered, in any attempt."""


class Broken(FetchError):
    """A server answered and broke off, in the last of all attempts."""


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
    again: Again | None = None,
    backoff_s: float = 1.0,
    session: Session | None = None,
    attempts: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Fetch `url` (http, https or file) into `dest`; both the promised size (if given) and sha256 are checked.

    `session` is one of `connections`, for many files of one server. What came of a broken download stays beside
    `dest`, hidden, for the next call.

    Raises: Gone, Unreachable, Broken, FetchError (offline, refused after all attempts, other bytes than promised:
    these are not kept).
    """
    if not url.startswith("file:"):
        offline.refuse(f"fetching {url}")
    deadline = time.monotonic() + timeout_s
    dest.parent.mkdir(parents=True, exist_ok=True)
    with _held(dest.with_name(f".{dest.name}.part"), deadline) as file:
        part = _Part(url, file, deadline, progress, again, dict(headers or {}), attempts or ATTEMPTS)
        try:
            if _promised(dest, sha256, size):
                return  # another build was faster
            old = part.have
            _fetch(part, backoff_s, session)
            problem = part.problem(sha256, size)
            if problem and old:  # what an earlier build left may be of another file
                part.restart()
                _fetch(part, backoff_s, session)
                problem = part.problem(sha256, size)
            if problem:
                part.restart()
                raise FetchError(f"{url}: {problem}; nothing was kept")
            os.fchmod(file.fileno(), 0o644)
            os.rename(file.name, dest)
        finally:
            if part.have == 0:
                Path(file.name).unlink(missing_ok=True)


def read(url: str, *, headers: Mapping[str, str] | None = None, limit: int = 1 << 20) -> bytes | None:
    """A small file at `url`, asked for once and not for long; None if the server has none.

    Raises: FetchError (no answer, refused, longer than `limit` bytes).
    """
    answer = ask("GET", url, headers=headers, limit=limit, read_s=_QUICK_S)
    return None if answer.status in (404, 410) else _accepted(answer).body


def put(url: str, source: Path, *, headers: Mapping[str, str] | None = None) -> None:
    """Send a file by PUT. Raises: FetchError."""
    _accepted(ask("PUT", url, body=source, headers=headers))


@dataclass(frozen=True)
class Answer:
    """What a server says to one request."""

    status: int
    reason: str
    headers: Mapping[str, str]
    """Their names in any case."""
    body: bytes
    url: str
    """Where it came from, after redirections."""


def ask(
    method: str,
    url: str,
    *,
    body: bytes | Path = b"",
    headers: Mapping[str, str] | None = None,
    limit: int = 1 << 20,
    read_s: float = _READ_S,
    timeout_s: float = _ASK_S,
) -> Answer:
    """One request (a path as its body: that file), and the answer whatever its status, for which `timeout_s` are left
    once it begins.

    Raises: FetchError (no answer, longer than `limit` bytes, too slow).
    """
    import requests

    offline.refuse(f"asking for {url}")
    try:
        with contextlib.ExitStack() as stack:
            data = stack.enter_context(body.open("rb")) if isinstance(body, Path) else body
            size = body.stat().st_size if isinstance(body, Path) else len(body)
            length = {} if method in ("GET", "HEAD") else {"Content-Length": str(size)}
            answer = stack.enter_context(requests.request(
                method, url, data=data, headers={**length, **(headers or {})}, auth=_own_authorization(headers),
                stream=True, timeout=(_QUICK_S, read_s),
            ))  # fmt: skip
            said, deadline = b"", time.monotonic() + timeout_s
            for block in _blocks(answer):
                said += block
                if len(said) > limit:
                    raise FetchError(f"{url}: is longer than {limit} bytes")
                if time.monotonic() > deadline:
                    raise FetchError(f"{url}: the answer took longer than {timeout_s:.0f} s")
    except requests.RequestException as error:
        raise FetchError(f"{url}: {_reason(error)}") from error
    except OSError as error:
        raise FetchError(f"{url}: {error}") from error
    return Answer(answer.status_code, answer.reason, answer.headers, said, answer.url)


def parameters(text: str) -> Mapping[str, str]:
    """Of a header like `realm="https://auth.example/token",service="registry.example"`."""
    import requests.utils

    found: dict[str, str | None] = requests.utils.parse_dict_header(text)  # type: ignore[no-untyped-call]
    return {name: value for name, value in found.items() if value is not None}


def _own_authorization(headers: Mapping[str, str] | None) -> Callable[[requests.PreparedRequest], Any] | None:
    """For headers that authorize: else requests puts what ~/.netrc has for the host in their place."""
    return (lambda request: request) if headers and "Authorization" in headers else None


def _accepted(answer: Answer) -> Answer:
    if answer.status >= 400:
        raise FetchError(f"{answer.url}: the server answers {answer.status} {answer.reason}")
    return answer


@dataclass
class _Part:
    """What has come of one file, and its hash so far."""

    url: str
    file: IO[bytes]
    deadline: float
    progress: Progress | None
    again: Again | None
    headers: dict[str, str]
    attempts: int
    answered: bool = False
    """Whether a server has said anything."""
    have: int = 0
    sha: hashlib._Hash = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        while block := self.file.read(_BLOCK):
            self.sha.update(block)
            self.have += len(block)

    def restart(self) -> None:
        """Forget all of it."""
        self.file.seek(0)
        self.file.truncate(0)
        self.have, self.sha = 0, hashlib.sha256()

    def add(self, block: bytes, total: int) -> None:
        """The next bytes. Raises: Cancelled, FetchError when time is up."""
        if process.is_cancelled():
            raise Cancelled(f"{self.url}: download ended, the build was told to stop")
        if time.monotonic() > self.deadline:
            raise FetchError(f"{self.url}: the download took too long", "try again or use a nearer mirror")
        self.file.write(block)
        self.sha.update(block)
        self.have += len(block)
        if self.progress:
            self.progress(self.have, total)

    def problem(self, sha256: str, size: int) -> str:
        """How it differs from what was promised; "" if it does not."""
        self.file.flush()
        if size and self.have != size:
            return f"{self.have} bytes came, {size} were promised"
        got = self.sha.hexdigest()
        return "" if got == sha256 else f"its sha256 is {got}, but {sha256} was promised"


def _fetch(part: _Part, backoff_s: float, session: Session | None) -> None:
    """Bring the rest of a file, in several attempts. Raises: as `download`."""
    if part.url.startswith("file:"):
        _copy(part)
        return
    import requests  # 0.1 s to import: only builds that fetch pay for it

    with contextlib.ExitStack() as stack:
        session = session or stack.enter_context(requests.Session())
        for attempt in range(part.attempts):
            try:
                _fetch_rest(session, part)
                return
            except requests.RequestException as error:
                status = error.response.status_code if error.response is not None else 0
                given_up = attempt == part.attempts - 1 or time.monotonic() > part.deadline
                if given_up or status in _FINAL:
                    raise _kind_of(error, status, part)(
                        f"{part.url}: {_reason(error)}", "check the URL and the network"
                    ) from error
                if part.again:
                    part.again(attempt + 2, part.attempts)
                _pause(part.url, min(backoff_s * 2**attempt, max(0.0, part.deadline - time.monotonic())))


def _fetch_rest(session: Session, part: _Part) -> None:
    """Append what is missing."""
    import requests

    headers = {"Accept-Encoding": "identity", **part.headers}
    if part.have:
        headers["Range"] = f"bytes={part.have}-"
    with session.get(
        part.url, headers=headers, stream=True, timeout=(_CONNECT_S, _READ_S), auth=_own_authorization(headers)
    ) as answer:
        part.answered = True
        if answer.status_code == 416:
            # It was whole already (the sha256 tells), or the server has another file than before.
            if answer.headers.get("Content-Range") == f"bytes */{part.have}":
                return
            part.restart()
            raise requests.ConnectionError("the server has another file than before")
        answer.raise_for_status()
        if answer.status_code != 206:
            part.restart()
        length = int(answer.headers.get("Content-Length", 0))
        total = length + part.have if length else 0
        for block in _blocks(answer):
            part.add(block, total)


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    """What an answer says, as it comes: whoever waits for a whole block of a server that sends a byte now and then
    does not see how late it is. Raises: requests.RequestException (it breaks, or says nothing for long).
    """
    import requests
    from urllib3.exceptions import HTTPError

    try:
        while block := answer.raw.read1(_BLOCK, decode_content=True):
            yield block
    except (HTTPError, OSError) as error:
        raise requests.ConnectionError(error) from error
    if answer.raw.length_remaining:
        raise requests.ConnectionError(f"the connection broke, {answer.raw.length_remaining} bytes are missing")


def _copy(part: _Part) -> None:
    """A file of this machine, by its URL."""
    part.restart()
    path = Path(urllib.parse.unquote(urllib.parse.urlsplit(part.url).path))
    try:
        with path.open("rb") as source:
            total = os.fstat(source.fileno()).st_size
            while block := source.read(_BLOCK):
                part.add(block, total)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Gone(f"{part.url}: there is no such file") from error
    except OSError as error:
        raise FetchError(f"{part.url}: {error.strerror}") from error


def _pause(url: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if process.is_cancelled():
            raise Cancelled(f"{url}: download ended, the build was told to stop")
        time.sleep(min(left, _POLL_S))


@contextlib.contextmanager
def _held(path: Path, deadline: float) -> Iterator[IO[bytes]]:
    """A file, open at its begin, that nobody else writes to; the kernel ends the hold of a process that died."""

    def wait() -> None:
        if process.is_cancelled():
            raise Cancelled(f"{path.name}: download ended, the build was told to stop")

    while True:
        with path.open("a+b") as file:
            if not flock.got(file, timeout_s=deadline - time.monotonic(), poll_s=_POLL_S, waiting=wait):
                raise FetchError(f"{path}: another build has been fetching it for too long", "end that build")
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    file.seek(0)
                    yield file
                    return
            # Who held it has renamed or removed it: open what is there now.


def _promised(dest: Path, sha256: str, size: int) -> bool:
    try:
        if size and dest.stat().st_size != size:
            return False
        with dest.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _kind_of(error: requests.RequestException, status: int, part: _Part) -> type[FetchError]:
    if status in (404, 410):
        return Gone
    if error.response is not None:
        return FetchError
    return Broken if part.answered else Unreachable


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    text = str(error)
    with contextlib.suppress(IndexError, AttributeError):
        text = str(error.args[0].reason)
    return text
