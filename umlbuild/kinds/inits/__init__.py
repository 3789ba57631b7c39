"""Init systems: what process 1 of the guest is. One file each."""

from typing import Annotated

from pydantic import Field

from umlbuild.kinds.inits.busybox import Busybox
from umlbuild.kinds.inits.script import Script
from umlbuild.kinds.inits.systemd import Systemd
from umlbuild.kinds.inits.sysvinit import Sysvinit

Init = Annotated[Systemd | Sysvinit | Busybox | Script, Field(discriminator="kind")]
KINDS = (Systemd, Sysvinit, Busybox, Script)
