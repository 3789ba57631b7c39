"""Signatures of files: ssh's (`ssh-keygen -Y`) or minisign's, told apart by what the key file holds.

Passphrases are not asked for: an ssh key with one goes into ssh-agent, and its .pub file is given as the key; a
minisign key is one made with `minisign -G -W`. Ed25519 signatures are the same bytes each time.

Source: ssh-keygen(1) (-l; -Y sign, find-principals, verify, check-novalidate; ALLOWED SIGNERS), minisign(1); tried with
OpenSSH 9.2 and minisign 0.11.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from umlbuild.errors import StepFailed, ToolFailed, UserError
from umlbuild.host import process

Kind = Literal["ssh", "minisign"]

RELEASE = "umlbuild-release"
"""What an ssh signature is for (`ssh-keygen -Y verify -n` wants the same word): here, a release."""

_TRIAL = "umlbuild-trial"

SUFFIXES: dict[Kind, str] = {"ssh": ".sig", "minisign": ".minisig"}
PROGRAMS: dict[Kind, str] = {"ssh": "ssh-keygen", "minisign": "minisign"}
_HINTS: dict[Kind, str] = {
    "ssh": "a key with a passphrase: ssh-add it and give its .pub file as the key",
    "minisign": "give the secret key, one without a password: minisign -G -W -s FILE",
}
_MINISIGN_PUBLIC = 56
"""Letters of a public key's second line; a secret one's has 212."""
_FINGERPRINT = re.compile(r"\bSHA256:[A-Za-z0-9+/]+")
_SSH_TYPES = ("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")
_TIMEOUT_S = 60.0


class _Refused(StepFailed):
    """A program of signatures failed. (One that a build has ended raises Cancelled.)"""


def kind_of(key: Path) -> Kind:
    """Whose key this is, secret or public. Raises: UserError."""
    try:
        text = key.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"key {key}: {error.strerror}", "name a file that you can read") from error
    first = text.lstrip().split("\n", 1)[0]
    if first.startswith("untrusted comment:"):
        return "minisign"
    if first.startswith("-----BEGIN ") and "PRIVATE KEY" in first:
        return "ssh"
    if any(word.startswith(_SSH_TYPES) for line in text.splitlines() for word in line.split()[:3]):
        return "ssh"
    raise UserError(
        f"key {key}: is neither a key of ssh nor one of minisign",
        "make one: ssh-keygen -t ed25519 -f FILE, or minisign -G -W -s FILE",
    )


def sign(file: Path, key: Path, comment: str, namespace: str = RELEASE) -> Path:
    """Sign a file; the signature stands beside it. Raises: UserError, StepFailed."""
    kind = kind_of(key)
    signature = file.with_name(file.name + SUFFIXES[kind])
    signature.unlink(missing_ok=True)  # ssh-keygen would ask, hear nobody, and keep it with exit status 0
    if kind == "ssh":
        argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key.absolute()), str(file)]
    else:
        argv = ["minisign", "-S", "-s", str(key.absolute()), "-m", str(file), "-x", str(signature)]
        argv += ["-c", "signature of umlbuild release", "-t", comment]
    agent = {name: os.environ[name] for name in ("SSH_AUTH_SOCK",) if name in os.environ}
    try:
        _output(argv, f"signing with {key}", hint=_HINTS[kind], env=agent)
    except _Refused as error:
        if "NOT accessible by others" in error.message:  # ssh-keygen's words; it ignores such a key
            error.hint = f"chmod 600 {key}"
        raise
    signature.chmod(0o644)
    return signature


def check(key: Path) -> None:
    """Sign a scratch text, so that a key that cannot sign is told before any work. Raises: UserError."""
    with tempfile.TemporaryDirectory(prefix="umlbuild-sign.") as scratch:
        text = Path(scratch, "text")
        text.write_text("whether this key signs\n")
        try:
            sign(text, key, "trial", _TRIAL)
        except _Refused as error:
            raise UserError(error.message, error.hint) from error


def verify(file: Path, key: Path, namespace: str = RELEASE) -> str:
    """Who has signed a file, by a public key, or a list of allowed signers (ssh).

    Raises: UserError (no such key, or a secret one), StepFailed (no signature of this kind, or not by this key).
    """
    kind = kind_of(key)
    _refuse_secret(key, kind)
    signature = file.with_name(file.name + SUFFIXES[kind])
    if not signature.is_file():
        raise StepFailed(f"{signature}: is not there, so nothing says who made it")
    failing = f"{signature}: is not a signature of this file by {key}"
    with tempfile.TemporaryDirectory(prefix="umlbuild-sign.") as name:
        scratch = Path(name)
        if kind == "minisign":
            argv = ["minisign", "-V", "-q", "-p", str(key.absolute()), "-m", str(file), "-x", str(signature)]
            _output(argv, failing)
            return f"minisign key {key.name}"
        allowed = _allowed(key, scratch)
        find = ["ssh-keygen", "-Y", "find-principals", "-s", str(signature), "-f", str(allowed)]
        signers = _output(find, failing).split("\n")[0].split(",")
        argv = ["ssh-keygen", "-Y", "verify", "-n", namespace, "-I", signers[0]]
        _output([*argv, "-f", str(allowed), "-s", str(signature)], failing, stdin=file)
        return signers[0]


def is_by(file: Path, key: Path, namespace: str = RELEASE) -> bool:
    """Whether a file's signature is good and by this key, one that `sign` takes; no list of signers.

    Raises: UserError (no such key), StepFailed (the key does not tell its public half).
    """
    kind = kind_of(key)
    signature = file.with_name(file.name + SUFFIXES[kind])
    if not signature.is_file():
        return False
    telling = f"asking {key} for its public half"
    if kind == "minisign":
        with tempfile.TemporaryDirectory(prefix="umlbuild-sign.") as scratch:
            public = Path(scratch, "public")
            _output(["minisign", "-R", "-s", str(key.absolute()), "-p", str(public)], telling, hint=_HINTS[kind])
            try:
                verify(file, public)
            except _Refused:
                return False
            return True
    # By fingerprints: `ssh-keygen -y` would want the passphrase of a key that is in ssh-agent.
    wanted = _FINGERPRINT.search(_output(["ssh-keygen", "-l", "-f", str(key.absolute())], telling, hint=_HINTS[kind]))
    argv = ["ssh-keygen", "-Y", "check-novalidate", "-n", namespace, "-s", str(signature)]
    try:
        found = _FINGERPRINT.search(_output(argv, str(signature), stdin=file))
    except _Refused:
        return False
    return wanted is not None and found is not None and wanted[0] == found[0]


def _refuse_secret(key: Path, kind: Kind) -> None:
    """Raises: UserError, if it is a secret key."""
    lines = key.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if kind == "ssh":
        secret = lines[0].startswith("-----BEGIN ")
    else:
        secret = any(len(line.strip()) > _MINISIGN_PUBLIC for line in lines[1:2])
    if secret:
        public = key.with_name(f"{key.name}.pub")
        raise UserError(
            f"key {key}: is a secret key, and a signature is checked with the public one",
            f"give {public}" if public.is_file() else "give its .pub file",
        )


def _allowed(key: Path, scratch: Path) -> Path:
    """A list of allowed signers; made of a .pub file, if the key is one."""
    text = key.read_text()
    if not text.startswith(_SSH_TYPES):
        return key.absolute()
    made = scratch / "allowed"
    made.write_text(f"{key.name} {text}")
    return made


def _output(
    argv: list[str], what: str, *, hint: str = "", stdin: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """What a program prints. Raises: _Refused (`what`, and its last words)."""
    with tempfile.TemporaryDirectory(prefix="umlbuild-sign.") as name:
        out = Path(name, "out")
        try:
            process.run(argv, log=Path(name, "log"), timeout_s=_TIMEOUT_S, stdin=stdin, stdout=out, env=env)
        except ToolFailed as error:
            said = [line for line in error.tail if not line.startswith("+ ")]  # the log begins with the command
            raise _Refused(f"{what}: {' '.join(said[-3:]) or error.cause}", hint) from error
        return out.read_text()
