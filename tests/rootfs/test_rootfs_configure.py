"""The configure stage: what is declared is what the root then has."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from rootfskit import configured, small_root

from umlbuild import digest
from umlbuild.errors import HostError, StepFailed
from umlbuild.host import process, rootless, tarball
from umlbuild.host.tarball import Member
from umlbuild.host.tree import Tree
from umlbuild.specs.rootfs import ConfigureSpec, Entry, Script, User
from umlbuild.stages import configure
from umlbuild.stages.context import Context

BASE = {"init": "script"}


def spec(**fields: object) -> ConfigureSpec:
    return ConfigureSpec.model_validate({**BASE, **fields})


def facts(tree: Tree, path: str) -> tuple[str, int, int, int]:
    member = tree.get(path, follow=False)
    assert member is not None, path
    return member.kind, member.mode, member.uid, member.gid


def test_entries(tmp_path: Path) -> None:
    source = tmp_path / "key.source"
    source.write_bytes(b"\0binary\xff")
    tree = configured(
        spec(
            entries=(
                Entry(path="/etc/hostname", content="router\n"),
                Entry(path="/lib/udev/rules.d/x", content="é\n", mode=0o600, user="www-data", group="adm"),
                Entry(path="/srv/blob", source=digest.of_file(source), user="1234"),
                Entry(path="/srv/empty"),
                Entry(path="/srv/d", type="dir", mode=0o2770, group="staff"),
                Entry(path="/etc/localtime", type="symlink", target="/usr/share/zoneinfo/Etc/UTC"),
            )
        ),
        small_root(),
        tmp_path,
    )
    assert tree.text("/etc/hostname") == "router\n"
    assert facts(tree, "/usr/lib/udev/rules.d/x") == ("file", 0o600, 33, 4)
    assert facts(tree, "/usr/lib/udev") == ("dir", 0o755, 0, 0)
    assert tree.read("/srv/blob") == b"\0binary\xff"
    assert facts(tree, "/srv/blob")[2] == 1234
    assert tree.read("/srv/empty") == b""
    assert facts(tree, "/srv/d") == ("dir", 0o2770, 0, 50)
    assert facts(tree, "/lib")[0] == "symlink"
    link = tree.get("/etc/localtime", follow=False)
    assert link is not None
    assert link.target == "/usr/share/zoneinfo/Etc/UTC"


def test_users(tmp_path: Path) -> None:
    users = (
        User(name="bob", groups=("adm",), password_hash="$y$h", ssh_keys=("ssh-ed25519 AAAA bob ",)),
        User(name="svc", home="/nonexistent", shell="/bin/sh"),
    )
    tree = configured(spec(users=users), small_root(), tmp_path)
    assert facts(tree, "/home/bob") == ("dir", 0o700, 1000, 1000)
    assert facts(tree, "/home/bob/.profile") == ("file", 0o644, 1000, 1000)
    assert facts(tree, "/home/bob/.ssh") == ("dir", 0o700, 1000, 1000)
    assert facts(tree, "/home/bob/.ssh/authorized_keys") == ("file", 0o600, 1000, 1000)
    assert tree.text("/home/bob/.ssh/authorized_keys") == "ssh-ed25519 AAAA bob\n"
    assert facts(tree, "/etc/shadow") == ("file", 0o640, 0, 42)
    assert "root:*:" in tree.text("/etc/shadow"), "root is locked unless given a password"
    assert "bob:$y$h:" in tree.text("/etc/shadow")
    assert "svc:!:" in tree.text("/etc/shadow")
    assert tree.get("/nonexistent") is None
    assert "bob:x:1000:1000::/home/bob:/bin/sh" in tree.text("/etc/passwd"), "there is no bash"


def test_entries_may_belong_to_declared_users(tmp_path: Path) -> None:
    entry = Entry(path="/home/bob/x", content="x", user="bob", group="bob")
    tree = configured(spec(users=(User(name="bob"),), entries=(entry,)), small_root(), tmp_path)
    assert facts(tree, "/home/bob/x") == ("file", 0o644, 1000, 1000)


def test_removal_comes_first_and_patterns_take_what_is_below(tmp_path: Path) -> None:
    root = small_root()
    for path in ("/usr/share/doc/a/x", "/usr/share/doc/b", "/usr/share/keep"):
        root.put_file(path, b"")
    entry = Entry(path="/usr/share/doc/README", content="left out\n")
    tree = configured(spec(remove=("/usr/share/doc/*", "/nothing"), entries=(entry,)), root, tmp_path)
    assert tree.names("/usr/share/doc") == ["README"]
    assert tree.names("/usr/share") == ["doc", "keep"]


def test_modules_land_behind_the_lib_link(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.mkdir()
    tarball.write(
        [Member("lib", "dir", 0o755), Member("lib/modules/7.3/tun.ko", "file", 0o644, data=b"ko")],
        kernel / "modules.tar",
    )
    tree = configured(spec(), small_root(), tmp_path / "c", modules=kernel)
    assert tree.read("/usr/lib/modules/7.3/tun.ko") == b"ko"
    assert facts(tree, "/lib")[0] == "symlink"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"entries": (Entry(path="/x", user="nobdy"),)},
            "/x: there is no user 'nobdy' in the root; did you mean nobody",
        ),
        ({"entries": (Entry(path="/x", source="0" * 64),)}, "is not there any more"),
        ({"entries": (Entry(path="/etc/passwd/x"),)}, "/etc/passwd is a file, not a directory"),
        ({"users": (User(name="bob", shell="/bin/zsh"),)}, "its shell /bin/zsh is not in the root"),
        ({"remove": ("/",)}, "the whole root"),
        ({"enable": ("ssh",)}, "init script has no services"),
        ({"enable": ("ssh",), "init": "systemd"}, "there is no unit 'ssh.service'"),
        ({"disable": ("cron",), "init": "sysvinit"}, "there is no service 'cron'"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, fields: dict[str, object], says: str) -> None:
    with pytest.raises(StepFailed) as caught:
        configured(spec(**fields), small_root(), tmp_path)
    assert says in str(caught.value)


def test_a_source_that_changes_during_the_build_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_text("one")
    key = digest.of_file(source)
    source.write_text("two")
    context = Context(work=tmp_path, log=tmp_path / "log", sources={key: source})
    with pytest.raises(StepFailed, match="changed while the build ran"):
        configure._content(Entry(path="/a", source=key), context)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    declared = spec(users=(User(name="a"), User(name="b")), entries=(Entry(path="/z/y/x", content="1"),))
    for name in ("one", "two"):
        configured(declared, small_root(), tmp_path / name)
    first, second = (tmp_path / name / "out/rootfs.tar" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def real_shell() -> Tree:
    """A root in which this machine's busybox runs, with the libraries that it may need."""
    tree = small_root()
    tree.put_file("/usr/bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    for library in re.findall(r"(/\S+) \(0x", process.output(["ldd", "/bin/busybox"], ok=(0, 1))):
        tree.put_file(library, Path(library).read_bytes(), mode=0o755)
    tree.put_symlink("/bin/sh", "busybox")
    return tree


needs_owners = pytest.mark.skipif(
    rootless.owners().missing is not None or not Path("/bin/busybox").exists() or shutil.which("bwrap") is None,
    reason="scripts need owners (root or subordinate ids), busybox and bwrap",
)


@needs_owners
def test_scripts_run_inside_and_only_inside(tmp_path: Path) -> None:
    content = """#!/bin/sh
b=/bin/busybox
$b id -u >/out
$b cat /proc/net/dev | $b grep -c : >>/out
$b mknod /block b 7 0 2>/dev/null && echo bad >>/out
$b mount -t tmpfs none /mnt 2>/dev/null && echo bad >>/out
$b touch /owned; $b chown 33:42 /owned; $b chmod 4755 /owned
$b test -e /work && echo bad >>/out
$b head -c 1 >>/out
echo $HOME $LC_ALL >>/out
"""
    tree = configured(spec(scripts=(Script(content=content),)), real_shell(), tmp_path)
    # One network interface is the loopback; standard input is empty.
    assert tree.text("/out").split() == ["0", "1", "/root", "C.UTF-8"]
    assert facts(tree, "/owned") == ("file", 0o4755, 33, 42)
    assert tree.get("/usr/sbin/policy-rc.d") is None
    assert tree.names("/tmp") == tree.names("/run") == tree.names("/dev") == []
    assert list((tmp_path / "work/scratch").iterdir()) == []


@needs_owners
def test_a_script_that_does_nothing_changes_nothing(tmp_path: Path) -> None:
    root = real_shell()
    root.put(
        Member(
            "ping",
            "file",
            0o755,
            data=b"p",
            xattrs={"security.capability": bytes.fromhex("0100000200200000" + "00" * 12)},
        )
    )
    root.merge([Member("ping6", "link", 0o755, target="ping")])
    configured(spec(), root, tmp_path / "a")
    configured(spec(scripts=(Script(content="#!/bin/sh\n"),)), root, tmp_path / "b")
    assert (tmp_path / "a/out/rootfs.tar").read_bytes() == (tmp_path / "b/out/rootfs.tar").read_bytes()


@needs_owners
def test_a_failing_script_shows_its_last_lines(tmp_path: Path) -> None:
    scripts = (Script(content="#!/bin/sh\n:\n"), Script(content="#!/bin/sh\nno-such-program\nexit 7\n"))
    with pytest.raises(StepFailed) as caught:
        configured(spec(scripts=scripts), real_shell(), tmp_path)
    text = str(caught.value)
    assert "script 2 of 2 inside the root (no-such-program): exit status 7" in text
    assert "no-such-program: not found" in text
    assert "unshare" not in text
    assert str(tmp_path / "log") in text


def test_scripts_without_owners_name_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = HostError("u has no subordinate ids", "sudo usermod …")
    monkeypatch.setattr(rootless, "owners", lambda: rootless.Owners("fakeroot", missing))
    with pytest.raises(HostError, match="usermod"):
        configured(spec(scripts=(Script(content="#!/bin/sh\n"),)), small_root(), tmp_path)
