"""`[rootfs]`: the Debian system inside the image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from umlbuild.kinds.bootstraps import Bootstrap
from umlbuild.kinds.bootstraps.mmdebstrap import Mmdebstrap
from umlbuild.kinds.inits import Init
from umlbuild.kinds.inits.systemd import Systemd
from umlbuild.recipe.types import (
    Account,
    Component,
    CryptHash,
    Domain,
    EnvName,
    FileMode,
    GuestPath,
    Hostname,
    Locale,
    PackageName,
    Service,
    Suite,
    Timezone,
)
from umlbuild.specs.model import Model

Trim = Literal["docs", "man", "locales"]


class User(Model):
    """An account that can log in. There are no plain-text passwords; without one of the three
    `password_*` fields the account is locked (ssh keys and `autologin` still work)."""

    name: Account
    """`root`, or the name of a user to create."""
    uid: int | None = Field(default=None, ge=0, le=60_000)
    """Its number; the next free one from 1000 by default."""
    groups: tuple[Account, ...] = ()
    """Groups besides its own."""
    shell: GuestPath | None = None
    """Login shell; /bin/bash (of busybox roots: /bin/sh) by default."""
    home: GuestPath | None = None
    """Home directory; /home/<name> by default."""
    password_hash: CryptHash | None = None
    """The crypt(5) hash of the password."""
    password_file: str | None = None
    """A file (beside the recipe) that holds such a hash."""
    password_env: EnvName | None = None
    """An environment variable that holds such a hash when the build runs."""
    ssh_keys: tuple[str, ...] = ()
    """Lines for ~/.ssh/authorized_keys."""


class File(Model):
    """A file to put into the root: either `content` or `source`."""

    path: GuestPath
    """Where, in the guest."""
    content: str | None = None
    """Its text."""
    source: str | None = None
    """A file beside the recipe with its bytes."""
    mode: FileMode = "0644"
    """Permissions, four octal digits in a string."""
    user: Account = "root"
    """Owner."""
    group: Account = "root"
    """Owning group."""


class Directory(Model):
    """An empty directory to make in the root."""

    path: GuestPath
    """Where, in the guest."""
    mode: FileMode = "0755"
    """Permissions."""
    user: Account = "root"
    """Owner."""
    group: Account = "root"
    """Owning group."""


class Symlink(Model):
    """A symbolic link to put into the root."""

    path: GuestPath
    """Where, in the guest."""
    target: str = Field(min_length=1)
    """What it points at."""


class Script(Model):
    """A program that is run inside the root while it is built, as root, in a sandbox of its own."""

    content: str | None = None
    """Its text, with a #! line."""
    source: str | None = None
    """A file beside the recipe."""
    network: bool = False
    """Whether it may use the network; its result then is only as repeatable as what it fetches."""


class Services(Model):
    """Services of the init."""

    enable: tuple[Service, ...] = ()
    """Started at boot."""
    disable: tuple[Service, ...] = ()
    """Not started at boot, though their packages enable them."""


class Tmpfs(Model):
    """A file system in memory."""

    path: GuestPath
    """Where it is mounted."""
    size: str = Field(default="50%", pattern=r"^([0-9]+[KMG]|[0-9]{1,2}%|100%)$")
    """At most this much: 64M, 1G, or per cent of the memory."""
    mode: FileMode = "1777"
    """Permissions of its top directory."""


class Rootfs(Model):
    """The Debian system of the machine."""

    suite: Suite = "bookworm"
    """Debian release: bookworm, trixie, …"""
    bootstrap: Bootstrap = Mmdebstrap()
    """What makes the root: `mmdebstrap`, `debootstrap` (same result, slower) or `extract` (only the
    packages that are named, unpacked and not configured)."""
    components: tuple[Component, ...] = ("main",)
    """Parts of the archive to take packages from."""
    variant: Literal["essential", "apt", "minbase", "buildd", "important", "standard"] = "minbase"
    """How much of Debian there is besides `packages`."""
    mirror: str | None = Field(
        default=None, pattern=r"^(https?|file)://[^\s'\"]+( (https?|file)://[^\s'\"]+)*$"
    )
    """Base URL of the Debian mirror; the host's own by default. If given, the guest's apt uses it too. Further ones,
    after spaces, are asked for packages that the first has no more."""
    packages: tuple[PackageName, ...] = ()
    """Packages to install besides the variant's."""
    init: Init = Systemd()
    """Process 1: `systemd`, `sysvinit`, `busybox`, or `{ kind = "script", command = [...] }`."""
    autologin: Account | None = None
    """Who is logged in on the launcher's terminal without a password; nobody by default."""
    hostname: Hostname | None = None
    """Host name; the recipe's name by default."""
    domain: Domain | None = None
    """Domain of the host name in /etc/hosts."""
    hosts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """More lines of /etc/hosts: address = ["name", …]."""
    timezone: Timezone = "Etc/UTC"
    """Time zone of the zoneinfo database."""
    locale: Locale = "C.UTF-8"
    """LANG of the system; others than C.UTF-8 are generated."""
    trim: tuple[Trim, ...] = ()
    """What to leave out of the image: `docs`, `man`, `locales`."""
    remove: tuple[GuestPath, ...] = ()
    """Paths or patterns (* ? []) to remove, with everything below them."""
    users: tuple[User, ...] = ()
    """Accounts. root exists and is locked unless it is given a password here."""
    files: tuple[File, ...] = ()
    """Files to add or replace."""
    directories: tuple[Directory, ...] = ()
    """Directories to add."""
    symlinks: tuple[Symlink, ...] = ()
    """Symbolic links to add."""
    tmpfs: tuple[Tmpfs, ...] = ()
    """File systems in memory to mount."""
    services: Services = Services()
    """Services to switch on and off."""
    run: tuple[Script, ...] = ()
    """Scripts to run inside the root after all of this is in place."""
