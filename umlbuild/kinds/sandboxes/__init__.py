"""Sandboxes: what stands between a hostile guest and its host. One file each, and one in `launcher/sandboxes/`."""

from typing import Annotated

from pydantic import Field

from umlbuild.kinds.sandboxes.bwrap import Bwrap
from umlbuild.kinds.sandboxes.landlock import Landlock
from umlbuild.kinds.sandboxes.none import NoSandbox

Sandbox = Annotated[Bwrap | Landlock | NoSandbox, Field(discriminator="kind")]
KINDS = (Bwrap, Landlock, NoSandbox)
