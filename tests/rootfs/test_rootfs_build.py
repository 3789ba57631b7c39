"""Real roots: both bootstrappers, as root and as ordinary users, compared with each other."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rootfskit import native, repository, rootfs_spec

from umlbuild.errors import HostError, StepFailed
from umlbuild.host import initscripts, process, rootless, tarball
from umlbuild.host.debian import release_of_host
from umlbuild.host.tree import Tree
from umlbuild.specs.rootfs import Method, RootfsSpec
from umlbuild.stages import rootfs
from umlbuild.stages.context import Context

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt"),
]

ROOT = Path(__file__).resolve().parents[2]
JUNK = ("locale", "man", "lintian")
"""Directories below /usr/share whose times depend on the order of unpacking."""

DRIVER = """
import sys
from pathlib import Path
from umlbuild.specs.rootfs import RootfsSpec
from umlbuild.stages import rootfs
from umlbuild.stages.context import Context
spec, where = RootfsSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2])
for name in ("out", "work"):
    (where / name).mkdir(parents=True)
inputs = {path.name: path for path in (where.parent / "inputs").iterdir()}
rootfs.run(spec, inputs, where / "out", Context(work=where / "work", log=where / "log"))
"""


def build(spec: RootfsSpec, where: Path, packages: Path | None = None, **inputs: Path) -> Path:
    for name in ("out", "work"):
        (where / name).mkdir(parents=True)
    context = Context(work=where / "work", log=where / "log")
    rootfs.run(spec, {"packages": packages or repository(spec.suite), **inputs}, where / "out", context)
    return where / "out"


needs_tools = pytest.mark.skipif(
    any(process.find(tool) is None for tool in ("mmdebstrap", "debootstrap")) or rootless.owners().missing is not None,
    reason="needs mmdebstrap, debootstrap and a way to make owners",
)


@pytest.fixture(scope="module", params=["bookworm", pytest.param("trixie", marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The outputs of mmdebstrap and debootstrap for one suite."""
    if rootless.owners().missing is not None or not native():
        pytest.skip("needs amd64 and a way to make owners")
    where = tmp_path_factory.mktemp("pair")
    yield (
        build(rootfs_spec("mmdebstrap", request.param), where / "m"),
        build(rootfs_spec("debootstrap", request.param), where / "d"),
    )
    shutil.rmtree(where, ignore_errors=True)


def facts(tree: Tree) -> dict[str, tuple[object, ...]]:
    rows: dict[str, tuple[object, ...]] = {}
    for m in tree:
        same_file = tarball.content(m) if m.kind == "file" and not m.path.startswith("var/") else b""
        target = m.target.removeprefix("/usr")
        rows[m.path] = (m.kind, m.mode, m.uid, m.gid, target, dict(m.xattrs), same_file)
    return rows


@needs_tools
def test_both_bootstrappers_give_the_same_root(pair: tuple[Path, Path]) -> None:
    first, second = (facts(Tree.of(out / "rootfs.tar")) for out in pair)
    assert (pair[0] / "packages.txt").read_text() == (pair[1] / "packages.txt").read_text()
    differ = {path for path in first.keys() | second.keys() if first.get(path) != second.get(path)}
    # The same accounts, in another order.
    assert differ <= {"etc/group", "etc/gshadow", "etc/shadow"}
    for path in differ:
        assert sorted(bytes(first[path][-1]).splitlines()) == sorted(bytes(second[path][-1]).splitlines())  # type: ignore[call-overload]


@needs_tools
def test_nothing_of_the_host_is_in_it(pair: tuple[Path, Path]) -> None:
    for out in pair:
        tree = Tree.of(out / "rootfs.tar")
        for path in ("/etc/hostname", "/etc/resolv.conf", "/etc/apt/sources.list", "/var/lib/dpkg/status-old"):
            assert tree.get(path) is None, path
        assert tree.read("/etc/machine-id") == b""
        for path in ("/dev", "/proc", "/run", "/tmp", "/var/lib/apt/lists", "/var/cache/apt"):
            assert tree.names(path) == [], path
        words = [os.uname().nodename.encode(), b"/tmp/repository", str(out.parent).encode()]
        texts = [m for m in tree if m.kind == "file" and m.path.startswith(("etc/", "var/")) and m.size < 1 << 20]
        leaks = {m.path for m in texts for word in words if len(word) > 3 and word in tarball.content(m)}
        assert leaks <= {"var/lib/dpkg/status"}
        assert max(m.mtime for m in tree) <= process.EPOCH


@needs_tools
def test_owners_modes_and_capabilities(pair: tuple[Path, Path]) -> None:
    for out in pair:
        tree = Tree.of(out / "rootfs.tar")
        rows = {path: tree.get(path) for path in ("/etc/shadow", "/usr/bin/su", "/usr/bin/ping", "/var/log/journal")}
        shadow, su, ping, journal = rows.values()
        assert shadow and su and ping and journal
        assert (shadow.mode, shadow.uid, shadow.gid) == (0o640, 0, 42)
        assert su.mode == 0o4755
        # trixie's ping needs none: its kernel settings let every group ping.
        if "VERSION_CODENAME=bookworm" in tree.text("/etc/os-release"):
            assert "security.capability" in ping.xattrs
        assert journal.mode == 0o2755
        assert journal.gid != 0
        assert "system.posix_acl_default" in journal.xattrs
        assert b"root:*:" in (tree.read("/etc/shadow") or b"")
        link = tree.get("/lib", follow=False)
        assert link is not None
        assert link.kind == "symlink"


@needs_tools
def test_gnu_tar_finds_nothing_wrong(pair: tuple[Path, Path]) -> None:
    for out in pair:
        listed = process.output(["tar", "-tf", str(out / "rootfs.tar")], timeout_s=120).splitlines()
        names = [name.removeprefix("./").rstrip("/") for name in listed]
        assert names == sorted(names, key=tarball.order_of)
        assert len(names) > 4000


@needs_tools
def test_sysvinit_links_are_those_of_insserv(tmp_path: Path) -> None:
    """What insserv computed in a real root is what initscripts computes again."""
    include = ("sysvinit-core", "ifupdown", "cron", "kmod", "udev")
    spec = rootfs_spec("mmdebstrap", "bookworm", include)
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    context = Context(work=tmp_path / "work", log=tmp_path / "log")
    rootfs.run(spec, {"packages": repository("bookworm", include)}, tmp_path / "out", context)
    tree = Tree.of(tmp_path / "out/rootfs.tar")

    def order(kind: str) -> dict[str, list[str]]:
        rows = (line.partition(":") for line in tree.text(f"/etc/init.d/.depend.{kind}").splitlines() if ":" in line)
        return {name: sorted(after.split()) for name, _, after in rows}

    before = {level: tree.names(f"/etc/rc{level}.d") for level in "2345"}, order("start")
    initscripts.disable(tree, "cron")
    assert "S01cron" not in tree.names("/etc/rc2.d")
    initscripts.enable(tree, "cron")
    assert ({level: tree.names(f"/etc/rc{level}.d") for level in "2345"}, order("start")) == before


@pytest.fixture(scope="module")
def users() -> Iterator[Callable[[str, bool], str]]:
    """Makes users of this machine (name, whether with subordinate ids), and removes those that it made."""
    made = []

    def get(name: str, with_ids: bool) -> str:
        if os.geteuid() != 0:
            pytest.skip("only root can act as other users")
        try:
            pwd.getpwnam(name)
        except KeyError:
            ids = [] if with_ids else ["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"]
            argv = ["useradd", "--create-home", "-K", "HOME_MODE=0700", *ids, name]
            if subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode != 0:
                pytest.skip(f"the user {name} cannot be made")
            made.append(name)
        have = rootless.subordinate_ids(Path("/etc/subuid").read_text(), name, pwd.getpwnam(name).pw_uid)
        if (have >= 65536) != with_ids:
            pytest.skip(f"the user {name} has {have} subordinate ids")
        return name

    yield get
    for name in made:
        subprocess.run(["userdel", "--remove", name], capture_output=True, check=False, timeout=60)


def as_user(name: str, spec: RootfsSpec, **inputs: Path) -> subprocess.CompletedProcess[str]:
    """Build in a cache in the user's own home directory, which nobody else may enter."""
    home = Path(pwd.getpwnam(name).pw_dir)
    assert home.stat().st_mode & 0o077 == 0
    clean(name)
    where = home / "cache dir" if spec.method.makes == "tree" else home / "cache"
    where.mkdir()
    for role, entry in {"packages": repository(spec.suite), **inputs}.items():
        shutil.copytree(entry, where / "inputs" / role)
    (where / "driver.py").write_text(DRIVER)
    subprocess.run(["chown", "-R", f"{name}:", where], check=True, timeout=60)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    environment = [f"HOME={home}", f"PYTHONPATH={ROOT}:{site}", "PYTHONDONTWRITEBYTECODE=1"]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = shutil.which(version, path="/usr/local/bin:/usr/bin") or sys.executable
    runner = ["runuser", "-u", name, "--", "env", *environment, python]
    probe = [*runner, "-c", "import pydantic, umlbuild"]
    if subprocess.run(probe, capture_output=True, check=False, cwd="/", timeout=60).returncode != 0:
        pytest.skip(f"{name} cannot read this Python environment")
    argv = [*runner, str(where / "driver.py"), spec.model_dump_json(), str(where / "made")]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/", timeout=600)


def clean(name: str) -> None:
    home = Path(pwd.getpwnam(name).pw_dir)
    for leftover in ("cache", "cache dir"):
        shutil.rmtree(home / leftover, ignore_errors=True)


@needs_tools
@pytest.mark.parametrize("kind", ["mmdebstrap", pytest.param("debootstrap", marks=pytest.mark.slow)])
def test_a_user_with_subordinate_ids_gets_the_same_bytes(
    pair: tuple[Path, Path], users: Callable[[str, bool], str], kind: str
) -> None:
    name = users("umlroot-ids", True)
    expected = pair[0 if kind == "mmdebstrap" else 1] / "rootfs.tar"
    suite = Tree.of(expected).text("/etc/os-release").partition("VERSION_CODENAME=")[2].split()[0]
    try:
        done = as_user(name, rootfs_spec(kind, suite))
        assert done.returncode == 0, done.stderr
        made = next(Path(pwd.getpwnam(name).pw_dir).glob("cache*/made/out/rootfs.tar"))
        assert made.read_bytes() == expected.read_bytes()
        assert not any((made.parent.parent / "work/scratch").iterdir()), "nothing of foreign owners is left"
    finally:
        clean(name)


@needs_tools
@pytest.mark.skipif(shutil.which("fakechroot") is None, reason="needs fakechroot")
def test_a_user_without_ids_gets_the_same_bytes_for_the_hosts_suite(
    pair: tuple[Path, Path], users: Callable[[str, bool], str]
) -> None:
    suite = release_of_host()
    if suite != Tree.of(pair[0] / "rootfs.tar").text("/etc/os-release").partition("VERSION_CODENAME=")[2].split()[0]:
        pytest.skip("the host is of another release")
    name = users("umlroot-none", False)
    try:
        done = as_user(name, rootfs_spec("mmdebstrap", suite))
        assert done.returncode == 0, done.stderr
        made = Path(pwd.getpwnam(name).pw_dir) / "cache/made/out/rootfs.tar"
        assert made.read_bytes() == (pair[0] / "rootfs.tar").read_bytes()
    finally:
        clean(name)


@pytest.mark.parametrize(("kind", "suite"), [("mmdebstrap", "trixie"), ("debootstrap", "bookworm")])
def test_a_user_without_ids_is_told_the_fix(users: Callable[[str, bool], str], kind: str, suite: str) -> None:
    if release_of_host() == suite and kind == "mmdebstrap":
        pytest.skip("fakechroot works for the host's own release")
    name = users("umlroot-none", False)
    try:
        done = as_user(name, rootfs_spec(kind, suite))
        assert done.returncode != 0
        assert "HostError" in done.stderr
        assert f"bootstrapping {suite} with {kind}" in done.stderr
        assert "sudo usermod --add-subuids" in done.stderr
    finally:
        clean(name)


def test_extract_only_lays_files_together(tmp_path: Path) -> None:
    include = ("busybox-static",)
    spec = rootfs_spec("extract", "bookworm", include)
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    source = repository("bookworm", (*include, "systemd-sysv"))
    (tmp_path / "repository/pool").mkdir(parents=True)
    for deb in (source / "pool").glob("busybox-static_*"):
        shutil.copy(deb, tmp_path / "repository/pool")
    shutil.copytree(source / "dists", tmp_path / "repository/dists")
    context = Context(work=tmp_path / "work", log=tmp_path / "log")
    rootfs.run(spec, {"packages": tmp_path / "repository"}, tmp_path / "out", context)
    tree = Tree.of(tmp_path / "out/rootfs.tar")
    assert tree.get("/bin/busybox") is not None
    link = tree.get("/bin", follow=False)
    assert link is not None
    assert link.kind == "symlink"
    assert tree.text("/etc/passwd").startswith("root:x:0:0:")
    assert "root:*:" in tree.text("/etc/shadow")
    assert (tmp_path / "out/rootfs.tar").stat().st_size < 20 << 20


@needs_tools
def test_a_package_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="no-such: not among the packages"):
        build(rootfs_spec("mmdebstrap", "bookworm", ("no-such",)), tmp_path)


@needs_tools
def test_a_program_that_is_not_installed_is_said(tmp_path: Path) -> None:
    spec = rootfs_spec("mmdebstrap", "bookworm")
    other = spec.model_copy(update={"method": Method(makes="tar", argv=("no-such-bootstrap",))})
    with pytest.raises(HostError, match="no-such-bootstrap is not installed"):
        build(other, tmp_path)
