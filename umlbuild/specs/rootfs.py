"""Specs of the root file system steps: bootstrap, configure."""

from __future__ import annotations

from typing import ClassVar, Literal

from umlbuild.specs.model import Model, Spec


class Method(Model):
    """How a bootstrapper makes a root file system. The stage fills in {repository}, {target} (of what it
    makes), {packages} (every package of the repository, with commas), {unwanted} ("apt", unless it is one of them) and
    {base} (the archive of the root that is added to).
    """

    makes: Literal["tar", "tree", "unpacked"]
    """An archive; a directory; nothing: the packages' files are laid together and nothing is configured."""
    argv: tuple[str, ...] = ()
    """Run as root of an own mount namespace with 65536 ids."""
    fake_argv: tuple[str, ...] | None = None
    """Run where there are no such ids, if the suite is the host's own; None: it cannot."""
    environment: tuple[tuple[str, str], ...] = ()


class RootfsSpec(Spec):
    """The rootfs stage. Input `packages` (a repository) and, if it is a layer, `base` (an entry of this stage) that
    they are added to. Output: `rootfs.tar` (numeric owners, pax xattrs, sorted members starting with `./`, times
    clamped to the epoch, nothing of the host in it) and `packages.txt` (`name version` lines of all).
    """

    STAGE: ClassVar[str] = "rootfs"

    bootstrap: Literal["mmdebstrap", "debootstrap", "extract"]
    method: Method
    suite: str
    architecture: str
    variant: Literal["essential", "apt", "required", "minbase", "buildd", "important", "standard", "extract"]
    """What `packages` was resolved for; every package of the repository is installed, whichever it is."""
    include: tuple[str, ...]
    """Names of packages that must be there (in a layer: in it or in its base) besides the variant's own."""


class Entry(Model):
    """One thing that the configure stage puts into the root, replacing what stood there."""

    path: str
    """Absolute, in the guest."""
    type: Literal["file", "dir", "symlink"] = "file"
    content: str | None = None
    """A file's text, if it is short and known to the plan."""
    source: str | None = None
    """A file's digest, if it comes from the user."""
    target: str = ""
    """Where a symlink points."""
    mode: int = 0o644
    user: str = "root"
    group: str = "root"
    """Names (or decimal ids) as the root's own passwd and group files have them after `users`."""


class User(Model):
    """A login account to create, or to change if the packages made it."""

    name: str
    uid: int | None = None
    groups: tuple[str, ...] = ()
    shell: str | None = None
    home: str | None = None
    password_hash: str = "!"
    """crypt(5) hash, "!" for a locked account, "" never."""
    ssh_keys: tuple[str, ...] = ()
    """Lines of authorized_keys."""


class Script(Model):
    """A program run inside the root as its (namespaced) root user."""

    content: str
    network: bool = False


class ConfigureSpec(Spec):
    """The configure stage. Input `rootfs`, and `modules` (kernel entry with modules.tar) if there are any.
    Output: `rootfs.tar`, as the rootfs stage's; or only what is to be changed in it, see `host.changes`.
    """

    STAGE: ClassVar[str] = "configure"

    whole: bool = True
    """Whether the whole root is wanted. Scripts need it."""
    entries: tuple[Entry, ...] = ()
    remove: tuple[str, ...] = ()
    """Absolute paths or patterns (`*`, `?`, `[…]` within one name, `**` across names); removed with what is
    below them, before anything is added."""
    users: tuple[User, ...] = ()
    scripts: tuple[Script, ...] = ()
    enable: tuple[str, ...] = ()
    """Service names (systemd units or sysvinit scripts), see `init`."""
    disable: tuple[str, ...] = ()
    init: Literal["systemd", "sysvinit", "busybox", "script"]
