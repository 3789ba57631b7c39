"""A repository of an OCI registry: `oci://registry.example/team/umlbuild`; http on loopback, https elsewhere.

    tag <stage>-<key>   a manifest: its config is the entry's description, its only layer the archive

So a registry that collects garbage keeps an archive for as long as its tag is there, and a tag can be removed alone.
A user and password come from ~/.netrc (of the registry, and of its token server where that is another host).
Source: OCI distribution specification 1.1, OCI image specification 1.1; docker's "token authentication specification".
"""

from __future__ import annotations

import hashlib
import json
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from umlbuild import digest
from umlbuild.errors import FetchError, HostError
from umlbuild.host import fetch
from umlbuild.host.remotes.base import Remote

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ENTRY = "application/vnd.umlbuild.entry.v1+json"
_ARCHIVE = "application/vnd.umlbuild.archive.v1"
_ADDRESS = re.compile(r"oci://([A-Za-z0-9.-]+(?::[0-9]+)?)/([a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*)/?")
_LOOPBACK = ("localhost", "127.0.0.1")


class Oci(Remote):
    """Blobs and manifests of one repository."""

    def __init__(self, address: str, base: str) -> None:
        super().__init__(address)
        self.base = base
        self._token = ""

    @classmethod
    def at(cls, address: str, environ: Mapping[str, str]) -> Self | None:  # noqa: ARG003
        """oci://. Raises: HostError if registry or repository is missing or none."""
        if not address.startswith("oci://"):
            return None
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise HostError(f"UMLBUILD_REMOTE: {address!r}: no registry, or no repository in it",
                            "write it as oci://HOST[:PORT]/REPOSITORY, in small letters")  # fmt: skip
        host, repository = found.groups()
        scheme = "http" if host.partition(":")[0] in _LOOPBACK else "https"
        return cls(address, f"{scheme}://{host}/v2/{repository}/")

    def read(self, name: str) -> bytes | None:
        """The description behind a tag."""
        answer = self._ask("GET", f"manifests/{_tag(name)}", headers={"Accept": _MANIFEST})
        if answer.status == 404:
            return None
        wanted = str(json.loads(self._good(answer, 200).body)["config"]["digest"])
        told = self._good(self._ask("GET", f"blobs/{wanted}"), 200).body
        if f"sha256:{hashlib.sha256(told).hexdigest()}" != wanted:
            raise FetchError(f"{self.address}: {wanted[:19]} has other bytes than promised")
        return told

    def load(self, name: str, dest: Path, sha256: str, size: int) -> None:  # noqa: ARG002
        """A blob, by its digest."""
        where = f"blobs/sha256:{sha256}"
        self._good(self._ask("HEAD", where), 200)  # tokens are short-lived: this gets a new one
        fetch.download(self.base + where, dest, sha256=sha256, size=size, attempts=2, headers=self._headers())

    def save(self, name: str, source: Path) -> None:
        """An archive as a blob; a description as a blob, and then the manifest with its tag."""
        described = self._blob(source)
        if not name.startswith("entries/"):
            return
        entry = json.loads(source.read_bytes())["entry"]
        archive = {"mediaType": _ARCHIVE, "digest": f"sha256:{entry['archive']}", "size": entry["size"]}
        manifest = {
            "schemaVersion": 2, "mediaType": _MANIFEST, "artifactType": _ENTRY,
            "config": {"mediaType": _ENTRY, **described}, "layers": [archive],
        }  # fmt: skip
        body = digest.canonical_json(manifest)
        self._good(self._ask("PUT", f"manifests/{_tag(name)}", body, {"Content-Type": _MANIFEST}), 201)

    def _blob(self, source: Path) -> dict[str, object]:
        """Its digest and size, once it is there."""
        name = f"sha256:{digest.of_file(source)}"
        if self._ask("HEAD", f"blobs/{name}").status != 200:
            begun = self._good(self._ask("POST", "blobs/uploads/"), 202)
            where = urllib.parse.urljoin(begun.url, begun.headers.get("Location", ""))
            where += ("&" if "?" in where else "?") + urllib.parse.urlencode({"digest": name})
            self._good(self._ask("PUT", where, source, {"Content-Type": "application/octet-stream"}), 201)
        return {"digest": name, "size": source.stat().st_size}

    def _ask(
        self, method: str, where: str, body: bytes | Path = b"", headers: Mapping[str, str] | None = None
    ) -> fetch.Answer:
        """One request; a second one with a token, if the registry asks for that."""
        url = urllib.parse.urljoin(self.base, where)
        ours = urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(self.base).netloc
        given = {**(headers or {}), **(self._headers() if ours else {})}
        answer = fetch.ask(method, url, body=body, headers=given)
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status != 401 or not ours or not challenge.startswith("Bearer "):
            return answer
        self._token = self._new_token(fetch.parameters(challenge.removeprefix("Bearer ")))
        return fetch.ask(method, url, body=body, headers={**given, **self._headers()})

    def _new_token(self, asked: Mapping[str, str]) -> str:
        query = urllib.parse.urlencode({name: asked[name] for name in ("service", "scope") if name in asked})
        answer = self._good(fetch.ask("GET", f"{asked['realm']}?{query}"), 200)
        got = json.loads(answer.body)
        return str(got.get("token") or got["access_token"])

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _good(self, answer: fetch.Answer, status: int) -> fetch.Answer:
        if answer.status == status:
            return answer
        raise FetchError(f"{self.address}: the registry answers {answer.status}{_why(answer.body)}")


def _tag(name: str) -> str:
    """Of "entries/<stage>/<key>.json"."""
    _, stage, key = name.removesuffix(".json").split("/")
    return f"{stage}-{key}"


def _why(body: bytes) -> str:
    """What the first of a registry's errors says."""
    try:
        return f" ({json.loads(body)['errors'][0]['message']})"
    except (ValueError, LookupError, TypeError):
        return ""
