"""Transports of UML's vector network: how frames leave the machine. One file each."""

from typing import Annotated

from pydantic import Field

from umlbuild.kinds.transports.bess import Bess
from umlbuild.kinds.transports.fd import Fd
from umlbuild.kinds.transports.tap import Tap
from umlbuild.kinds.transports.user import User

Transport = Annotated[Tap | Bess | Fd | User, Field(discriminator="kind")]
KINDS = (Tap, Bess, Fd, User)
