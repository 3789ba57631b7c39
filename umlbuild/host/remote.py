"""Entries at a remote: pulled by key before they would be made, pushed (if asked) when they were.

    entries/<stage>/<key>.json   {"entry": {…}, "signature": "…"}: which archive is the entry of a key
    blobs/<sha256>               the archive: tar, compressed by zstd or gzip

`entry` names stage, key, archive, size and the digest of the manifest; its signature (ssh-keygen -Y) is over all of
that, so an archive cannot stand for another key. The archive's digest is checked before anything of it is unpacked, the
manifest's after. A remote that is down is said once, and then left alone.
Source: ssh-keygen(1), -Y sign and -Y verify; PROTOCOL.sshsig.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import FetchError, HostError, StepFailed, UserError
from umlbuild.host import process, signing
from umlbuild.host.remotes import remote_of
from umlbuild.host.remotes.base import Remote
from umlbuild.host.store import MANIFEST, Store, seal

_NAMESPACE = "umlbuild-store"
_UNPACK_S = 1800.0
_NOT_SHARED = frozenset({"packages", "kernel_source"})
"""Stages whose entries are only what others' servers have anyway, and large."""

_COMPRESSORS: Mapping[str, tuple[str, ...]] = {"zstd": ("zstd", "-q", "-c", "-T0"), "gzip": ("gzip", "-n", "-c", "-1")}


@dataclass
class RemoteStore:
    """One remote with what was said about trust."""

    remote: Remote
    signers: Path | None = None
    """ssh's allowed_signers file; None: the remote itself is trusted."""
    push_entries: bool = False
    key: Path | None = None
    """ssh private key (or public one, with its agent) that signs what is pushed."""
    is_down: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pull(self, store: Store, stage: str, key: str) -> bool:
        """Get the entry of a key into the store (whose lock of the key is held); False if that was not possible."""
        if self.is_down or stage in _NOT_SHARED:
            return False
        try:
            told = self.remote.read(f"entries/{stage}/{key}.json")
            if told is None:
                return False
            self._unpack(store, self._trusted(told, store, stage, key))
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            if process.is_cancelled():
                raise
            self._warn(error)
            return False
        return True

    def push(self, store: Store, stage: str, key: str) -> bool:
        """Put an entry there; False if it was not possible, or not asked for."""
        if self.is_down or not self.push_entries or stage in _NOT_SHARED:
            return False
        try:
            self._pack(store, stage, key)
        except (UserError, OSError) as error:
            if process.is_cancelled():
                raise
            self._warn(error)
            return False
        return True

    def _trusted(self, told: bytes, store: Store, stage: str, key: str) -> dict[str, object]:
        """The description of an entry, its signature checked. Raises: FetchError; ValueError and such if it is none."""
        data = json.loads(told)
        entry = data["entry"]
        if (entry["stage"], entry["key"]) != (stage, key):
            raise FetchError(f"{self.remote.address}: what it has for {stage} {key[:12]} is for another key")
        if self.signers is not None:
            with store.working("signature") as work:
                (work / "text.sig").write_text(str(data.get("signature", "")))
                (work / "text").write_bytes(digest.canonical_json(entry))
                try:
                    signing.verify(work / "text", self.signers, _NAMESPACE)
                except StepFailed as error:
                    what = f"{stage} {key[:12]} is not signed by anybody in {self.signers}"
                    raise FetchError(f"{self.remote.address}: {what}") from error
        return dict(entry)

    def _unpack(self, store: Store, entry: Mapping[str, object]) -> None:
        compressor, sha256 = str(entry["compression"]), str(entry["archive"])
        if compressor not in _COMPRESSORS or not process.find(compressor):
            raise HostError(f"{self.remote.address}: {compressor} is missing to unpack it")
        size = int(str(entry["size"]))
        stage, key = str(entry["stage"]), str(entry["key"])
        with store.working("pull") as work:
            archive = work / "archive"
            self.remote.load(f"blobs/{sha256}", archive, sha256, size)
            with store.filling(stage, key) as out:
                process.pipeline(
                    [[compressor, "-dcq"], ["tar", "-x", "-p", "--no-same-owner", "-C", os.fspath(out)]],
                    log=_log(store), timeout_s=_UNPACK_S, stdin=archive,
                )  # fmt: skip
                digest.forget_files()
                seal(out)
                if digest.of_file(out / MANIFEST) != entry["manifest"]:
                    raise FetchError(f"{self.remote.address}: {stage} {key[:12]} is not what was packed")

    def _pack(self, store: Store, stage: str, key: str) -> None:
        entry = store.path(stage, key)
        compressor = next(name for name in _COMPRESSORS if process.find(name))
        with store.working("push") as work:
            archive = work / "archive"
            tar = [
                "tar", "-c", "--sparse", "--format=posix", "--sort=name", "--numeric-owner", "--owner=0", "--group=0",
                f"--exclude=./{MANIFEST}", "-C", os.fspath(entry), ".",
            ]  # fmt: skip
            process.pipeline(
                [tar, list(_COMPRESSORS[compressor])], log=_log(store), timeout_s=_UNPACK_S, stdout=archive
            )
            sha256 = digest.of_file(archive)
            described = {
                "stage": stage, "key": key, "archive": sha256, "size": archive.stat().st_size,
                "compression": compressor, "manifest": digest.of_file(entry / MANIFEST),
            }  # fmt: skip
            (work / "text").write_bytes(digest.canonical_json(described))
            signature = signing.sign(work / "text", self.key, "", _NAMESPACE).read_text() if self.key else ""
            (work / "json").write_bytes(digest.canonical_json({"entry": described, "signature": signature}))
            self.remote.save(f"blobs/{sha256}", archive)
            self.remote.save(f"entries/{stage}/{key}.json", work / "json")

    def _warn(self, error: Exception) -> None:
        with self._lock:
            if not self.is_down:
                self.is_down = True
                message = error.message.splitlines()[0] if isinstance(error, UserError) else f"{error}"
                sys.stderr.write(f"the remote store is left alone: {message}\n")


def remote_store(environ: Mapping[str, str]) -> RemoteStore | None:
    """What UMLBUILD_REMOTE and the variables beside it say; None without. Raises: HostError."""
    address = environ.get("UMLBUILD_REMOTE")
    if not address:
        return None
    signers = environ.get("UMLBUILD_REMOTE_SIGNERS")
    if not signers and environ.get("UMLBUILD_REMOTE_TRUSTED") != "1":
        raise HostError(
            f"UMLBUILD_REMOTE: nothing says why {address} is to be trusted",
            "name an allowed_signers file in UMLBUILD_REMOTE_SIGNERS, or set UMLBUILD_REMOTE_TRUSTED=1",
        )
    for name in ("UMLBUILD_REMOTE_SIGNERS", "UMLBUILD_REMOTE_KEY"):
        if (word := environ.get(name)) and not Path(word).is_file():
            raise HostError(f"{name}: {word}: no such file", "ssh-keygen -t ed25519 makes a key")
    key = environ.get("UMLBUILD_REMOTE_KEY")
    push = environ.get("UMLBUILD_REMOTE_PUSH", "")
    if push not in ("", "0", "1"):
        raise HostError(f"UMLBUILD_REMOTE_PUSH={push}: not 0 or 1", "UMLBUILD_REMOTE_PUSH=1 sends what was made")
    if push == "1" and signers and not key:
        raise HostError(
            "UMLBUILD_REMOTE_PUSH: what is sent would not be signed, and nobody with these signers would take it",
            "name the ssh key that signs in UMLBUILD_REMOTE_KEY",
        )
    if (signers or key) and not process.find("ssh-keygen"):
        raise HostError("UMLBUILD_REMOTE: ssh-keygen is missing", "apt-get install openssh-client")
    return RemoteStore(
        remote_of(address, environ),
        signers=Path(signers) if signers else None,
        push_entries=push == "1",
        key=Path(key) if key else None,
    )


def _log(store: Store) -> Path:
    path = store.root / "logs" / "remote.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
