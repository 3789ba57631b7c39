"""Layers: a root over a base of its own making, as root and as ordinary users, warm and cold."""

from __future__ import annotations

import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rootfskit import INCLUDE, native, repository, rootfs_spec
from test_rootfs_build import as_user, build, clean, facts, needs_tools, users  # noqa: F401  # a fixture

from umlbuild.errors import StepFailed
from umlbuild.host import rootless
from umlbuild.host.debian import release_of_host
from umlbuild.host.tree import Tree

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt"),
    needs_tools,
]

SUITE = "bookworm"
WHOLE = (*INCLUDE, "dnsmasq-base", "nftables")
"""The base has systemd; over it come an account, a bus with a service, and what a base's libraries depend on."""
LAYER = rootfs_spec("mmdebstrap", SUITE, WHOLE, layer=True)


def base_in(where: Path) -> Path:
    return build(rootfs_spec("mmdebstrap", SUITE), where, repository(SUITE))


def layer_in(where: Path, base: Path, *more: str) -> Path:
    spec = rootfs_spec("mmdebstrap", SUITE, (*WHOLE, *more), layer=True)
    return build(spec, where, repository(SUITE, (*WHOLE, *more), INCLUDE), base=base)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A base and a layer over it."""
    if rootless.owners().missing is not None or not native():
        pytest.skip("needs amd64 and a way to make owners")
    where = tmp_path_factory.mktemp("layers")
    base = base_in(where / "base")
    yield base, layer_in(where / "layer", base)
    shutil.rmtree(where, ignore_errors=True)


def test_a_build_from_nothing_gives_the_bytes_of_one_over_a_kept_base(warm: tuple[Path, Path], tmp_path: Path) -> None:
    # Something else was installed over the kept base in between: it is read and never written.
    more = layer_in(tmp_path / "more", warm[0], "less")
    assert "\nless " in (more / "packages.txt").read_text()
    base = base_in(tmp_path / "base")
    assert (base / "rootfs.tar").read_bytes() == (warm[0] / "rootfs.tar").read_bytes()
    layer = layer_in(tmp_path / "layer", base)
    for name in ("rootfs.tar", "packages.txt"):
        assert (layer / name).read_bytes() == (warm[1] / name).read_bytes(), name


@pytest.mark.slow
def test_a_layered_root_is_the_one_made_at_once(warm: tuple[Path, Path], tmp_path: Path) -> None:
    once = build(rootfs_spec("mmdebstrap", SUITE, WHOLE), tmp_path / "once", repository(SUITE, WHOLE))
    assert (warm[1] / "packages.txt").read_text() == (once / "packages.txt").read_text()
    layered, at_once = (facts(Tree.of(out / "rootfs.tar")) for out in (warm[1], once))
    differ = {path for path in layered.keys() | at_once.keys() if layered.get(path) != at_once.get(path)}
    # The same accounts, in another order: the base's come first.
    assert differ <= {"etc/group", "etc/gshadow", "etc/passwd", "etc/shadow"}
    for path in differ:
        one, other = (bytes(rows[path][-1]).splitlines() for rows in (layered, at_once))  # type: ignore[call-overload]
        assert len(one) == len(other)
        assert {line.split(b":")[0] for line in one} == {line.split(b":")[0] for line in other}


@pytest.mark.parametrize(("name", "with_ids"), [("umlroot-ids", True), ("umlroot-none", False)])
def test_an_ordinary_user_gets_the_same_layer(
    warm: tuple[Path, Path], users: Callable[[str, bool], str], name: str, with_ids: bool  # noqa: F811
) -> None:  # fmt: skip
    if not with_ids and (release_of_host() != SUITE or shutil.which("fakechroot") is None):
        pytest.skip("needs fakechroot and a host of the same release")
    name = users(name, with_ids)
    try:
        done = as_user(name, LAYER, packages=repository(SUITE, WHOLE, INCLUDE), base=warm[0])
        assert done.returncode == 0, done.stderr
        made = Path(pwd.getpwnam(name).pw_dir) / "cache/made"
        assert (made / "out/rootfs.tar").read_bytes() == (warm[1] / "rootfs.tar").read_bytes()
        assert not with_ids or not any((made / "work/scratch").iterdir()), "nothing of foreign owners is left"
    finally:
        clean(name)


def test_a_layer_over_a_foreign_base_is_refused(warm: tuple[Path, Path], tmp_path: Path) -> None:
    """A base whose list is not what its dpkg knows: the root would not hold what was pinned."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/rootfs.tar").hardlink_to(warm[0] / "rootfs.tar")
    (tmp_path / "base/packages.txt").write_text((warm[0] / "packages.txt").read_text() + "other 1.0\n")
    with pytest.raises(StepFailed, match=r"does not hold exactly the pinned packages: other 1\.0"):
        layer_in(tmp_path / "made", tmp_path / "base")
    with pytest.raises(StepFailed, match="no-such: not among the packages"):
        build(LAYER.model_copy(update={"include": (*INCLUDE, "no-such")}), tmp_path / "none",
              repository(SUITE, WHOLE, INCLUDE), base=warm[0])  # fmt: skip
