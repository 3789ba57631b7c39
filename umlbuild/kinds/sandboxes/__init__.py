"""Sandboxes: what stands between a hostile guest and its host. One file each, and one in `launcher/sandboxes/`."""

from typing import Annotated

from pydantic import Field

from umlbuild.kinds.sandboxes.bwrap import Bwrap
from umlbuild.kinds.sandboxes.none import NoSandbox

Sandbox = Annotated[Bwrap | NoSandbox, Field(discriminator="kind")]
KINDS = (Bwrap, NoSandbox)
