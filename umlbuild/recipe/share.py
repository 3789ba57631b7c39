"""`[[share]]`: directories of the host that the guest sees."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from umlbuild.recipe.types import GuestPath
from umlbuild.specs.model import Model


def _host_directory(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not an absolute path of the host that will run the machine")
    if ".." in value.split("/") or any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValueError(f"{value!r} has a '..' or a control character in it")
    if not value.strip("/"):
        raise ValueError("the whole host cannot be shared; name a directory")
    return value


class Share(Model):
    """One shared directory. It must exist when the machine starts, and hold neither a home directory nor the bundle."""

    host: Annotated[str, AfterValidator(_host_directory)]
    """The directory, on the host that runs the machine; `run --share GUEST=PATH` names another one."""
    guest: GuestPath
    """Where the guest has it."""
    writable: bool = False
    """Whether the guest may write to it, as the user who started the machine; else the mount on the host forbids it."""
