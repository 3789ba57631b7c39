"""Transports of UML's vector network: how frames leave the machine. One file each."""

from typing import Annotated

from pydantic import Field

from umlbuild.kinds.transports.bess import Bess
from umlbuild.kinds.transports.fd import Fd
from umlbuild.kinds.transports.gre import Gre
from umlbuild.kinds.transports.hybrid import Hybrid
from umlbuild.kinds.transports.l2tpv3 import L2tpv3
from umlbuild.kinds.transports.raw import Raw
from umlbuild.kinds.transports.tap import Tap
from umlbuild.kinds.transports.user import User
from umlbuild.kinds.transports.vde import Vde

Transport = Annotated[
    Tap | Hybrid | Raw | Gre | L2tpv3 | Bess | Fd | Vde | User, Field(discriminator="kind")
]
KINDS = (Tap, Hybrid, Raw, Gre, L2tpv3, Bess, Fd, Vde, User)
