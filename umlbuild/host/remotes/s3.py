"""A bucket of an S3-compatible server: `s3://BUCKET/PREFIX`, at AWS_ENDPOINT_URL.

As other S3 programs, it reads AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN; without a key requests are not signed. The bucket is a part of the path, not of the host's name.
Source: "Signature Version 4 signing process" of the S3 API reference; checked against botocore in the tests.
"""

from __future__ import annotations

import hashlib
import hmac
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from umlbuild.errors import HostError
from umlbuild.host.remotes.http import Http

_UNSIGNED = "UNSIGNED-PAYLOAD"
"""In place of the body's digest: what is put is content-addressed, and checked by whoever gets it."""


@dataclass(frozen=True)
class Credentials:
    """Who signs."""

    access_key: str
    secret: str
    token: str
    region: str


class S3(Http):
    """HTTP with signed requests."""

    def __init__(self, address: str, base: str, credentials: Credentials | None) -> None:
        super().__init__(address)
        self.base = base
        self.credentials = credentials

    @classmethod
    def at(cls, address: str, environ: Mapping[str, str]) -> Self | None:
        """s3://. Raises: HostError without an endpoint."""
        if not address.startswith("s3://"):
            return None
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        if not endpoint:
            raise HostError(f"{address}: it is not known which server has it", "set AWS_ENDPOINT_URL")
        key = environ.get("AWS_ACCESS_KEY_ID")
        credentials = Credentials(
            access_key=key,
            secret=environ.get("AWS_SECRET_ACCESS_KEY", ""),
            token=environ.get("AWS_SESSION_TOKEN", ""),
            region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        ) if key else None  # fmt: skip
        path = address.removeprefix("s3://").strip("/")
        return cls(address, f"{endpoint.rstrip('/')}/{urllib.parse.quote(path)}", credentials)

    def _url(self, name: str) -> str:
        return f"{self.base}/{name}"

    def _headers(self, method: str, name: str) -> dict[str, str]:
        if self.credentials is None:
            return {}
        return signed(method, self._url(name), self.credentials, time.gmtime())


def signed(method: str, url: str, who: Credentials, when: time.struct_time) -> dict[str, str]:
    """The headers of a request for `url` (without a query) that was signed at `when` (UTC)."""
    parts = urllib.parse.urlsplit(url)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", when)
    scope = f"{stamp[:8]}/{who.region}/s3/aws4_request"
    headers = {"host": parts.netloc, "x-amz-content-sha256": _UNSIGNED, "x-amz-date": stamp}
    if who.token:
        headers["x-amz-security-token"] = who.token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"{method}\n{parts.path}\n\n{lines}\n{names}\n{_UNSIGNED}"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{who.secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    del headers["host"]  # the HTTP library sends the same
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={who.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers
