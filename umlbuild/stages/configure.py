"""Configure: the declared files, users and services, put into the root file system's archive.

The archive is edited as an archive: no root, namespace or unpacking is needed, and members that nobody
names are copied as raw bytes. Only `scripts` need the root unpacked, with its owners, in a sandbox.

Order: remove, modules (both: see `host.ground`), users, entries, services, scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import StepFailed
from umlbuild.host import changes, ground, initscripts, offline, residue, sandbox, units
from umlbuild.host.accounts import FILES, Account, Accounts
from umlbuild.host.tree import Tree
from umlbuild.specs.rootfs import ConfigureSpec, Entry, User
from umlbuild.stages.context import Context

_SCRIPTS_S = 1800
_SERVICES = {"systemd": units, "sysvinit": initscripts}
_NO_HOME = ("/", "/nonexistent", "/dev/null")


def run(spec: ConfigureSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out` with the whole root, or with what changes in it.

    Raises: StepFailed (what is declared does not fit the root), HostError (scripts need owners).
    """
    before = ground.of(inputs["rootfs"], spec.remove, inputs.get("modules"), context.note)
    tree = before if spec.whole else before.copy()
    accounts = _users(tree, spec)
    for entry in spec.entries:
        _put(tree, entry, accounts, context)
    _services(tree, spec)
    if not spec.whole:
        changes.between(before, tree).write(out)
        return
    if spec.scripts:
        tree = _run_scripts(tree, spec, context)
    tree.write(out / ground.ROOT_TAR)


def _users(tree: Tree, spec: ConfigureSpec) -> Accounts:
    """Write the account files, homes and ssh keys."""
    before = {name: tree.text(f"/etc/{name}") for name in FILES}
    accounts = Accounts(before.__getitem__)
    default_shell = "/bin/bash" if tree.get("/bin/bash") is not None else "/bin/sh"
    made = []
    for user in spec.users:
        if user.shell is not None and tree.get(user.shell) is None:
            raise StepFailed(
                f"user {user.name}: its shell {user.shell} is not in the root", "add the package that has it"
            )
        made.append((user, accounts.put(user, default_shell)))
    for name in FILES:
        text = accounts.text(name)
        if text == before[name]:
            continue
        path = f"/etc/{name}"
        if tree.get(path) is None:
            tree.put_file(path, b"", mode=0o600 if "shadow" in name else 0o644)
        tree.replace(path, text.encode(errors="surrogateescape"))
    for user, account in made:
        _home(tree, user, account)
    return accounts


def _home(tree: Tree, user: User, account: Account) -> None:
    own = {"uid": account.uid, "gid": account.gid}
    if account.is_new and account.home not in _NO_HOME and tree.get(account.home) is None:
        tree.put_dir(account.home, mode=0o700, **own)
        skel = tree.resolve("/etc/skel")
        for path in tree.below("/etc/skel"):
            member = tree.get(f"/{path}", follow=False)
            at = f"{account.home}/{path.removeprefix(f'{skel}/')}"
            if member is not None:
                tree.put(member.but(path=tree.resolve(at, last=False), **own))
    if user.ssh_keys:
        tree.put_dir(f"{account.home}/.ssh", mode=0o700, **own)
        text = "".join(f"{key.strip()}\n" for key in user.ssh_keys)
        tree.put_file(f"{account.home}/.ssh/authorized_keys", text.encode(), mode=0o600, **own)


def _put(tree: Tree, entry: Entry, accounts: Accounts, context: Context) -> None:
    try:
        uid, gid = accounts.uid(entry.user), accounts.gid(entry.group)
    except StepFailed as error:
        raise StepFailed(f"{entry.path}: {error.message}", "declare it, or add its package") from error
    if entry.type == "dir":
        tree.put_dir(entry.path, mode=entry.mode, uid=uid, gid=gid)
    elif entry.type == "symlink":
        tree.put_symlink(entry.path, entry.target, uid=uid, gid=gid)
    else:
        tree.put_file(entry.path, _content(entry, context), mode=entry.mode, uid=uid, gid=gid)


def _content(entry: Entry, context: Context) -> bytes | Path:
    if entry.source is None:
        return (entry.content or "").encode()
    path = context.source(entry.source, entry.path)
    if digest.of_file(path) != entry.source:
        raise StepFailed(f"{entry.path}: {path.name} was changed while the build ran", "run the build again")
    return path


def _services(tree: Tree, spec: ConfigureSpec) -> None:
    if not (spec.enable or spec.disable):
        return
    if spec.init not in _SERVICES:
        raise StepFailed(f"init {spec.init} has no services to enable or disable", "name them in its own files")
    services = _SERVICES[spec.init]
    for name in spec.disable:
        services.disable(tree, name)
    for name in spec.enable:
        services.enable(tree, name)


def _run_scripts(tree: Tree, spec: ConfigureSpec, context: Context) -> Tree:
    if any(script.network for script in spec.scripts):
        offline.refuse("running a script inside the root (rootfs.run with network = true)")
    context.note(f"running {len(spec.scripts)} scripts inside the root")
    programs = [sandbox.Program(script.content, script.network) for script in spec.scripts]
    result = sandbox.run(programs, tree, work=context.work, log=context.log, timeout_s=_SCRIPTS_S)
    residue.clean(result)
    return result
