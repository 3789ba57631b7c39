"""Real kernels: Debian's source, a small configuration, the real make; and the distribution's prebuilt one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import untar
from sourcekit import fetched

from umlbuild import digest, kconfig
from umlbuild.errors import StepFailed, ToolFailed
from umlbuild.host import process
from umlbuild.host.elf import linkage_of
from umlbuild.host.kbuild import PROGRAMS
from umlbuild.kinds import symbols
from umlbuild.kinds.kernels.prebuilt import COMPILER, LIBRARIES
from umlbuild.plan.kernel import xstate_source
from umlbuild.specs.kernel import (
    DebSource,
    KernelConfigSpec,
    KernelSourceSpec,
    KernelSpec,
    PrebuiltKernelSpec,
)
from umlbuild.stages import kernel, kernel_config, kernel_source, prebuilt_kernel
from umlbuild.stages.context import Context

MISSING = sorted(program for program in {*PROGRAMS, "depmod", "apt-get"} if process.find(program) is None)
pytestmark = [
    pytest.mark.build,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(MISSING), reason=f"missing: {' '.join(MISSING)}"),
]
WITH_A_MODULE = {
    **symbols.BASE, **symbols.BUSYBOX, "MODULES": "y", "MODULE_UNLOAD": "y", "NETDEVICES": "y",
    "NET_CORE": "y", "DUMMY": "m",
}  # fmt: skip


class Bench:
    """Runs stages in directories of one test session."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._count = 0

    def context(self, where: str, sources: Mapping[str, Path] | None = None) -> Context:
        self._count += 1
        work = self.root / where / "work" / f"step{self._count}"
        work.mkdir(parents=True)
        return Context(work=work, log=self.root / "logs" / f"{self._count}.log", sources=sources or {})

    def out(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True)
        return path

    def config(
        self, wanted: Mapping[str, str], source: Path, name: str, optional: Mapping[str, str] | None = None
    ) -> Path:
        out = self.out(name)
        optional = {**symbols.BASE_OPTIONAL, **(optional or {})}
        spec = KernelConfigSpec(
            tree=None, base="tinyconfig", symbols=tuple(sorted(wanted.items())),
            optional_symbols=tuple(sorted(optional.items())),
        )  # fmt: skip
        kernel_config.run(spec, {"source": source}, out, self.context("a"))
        return out


@pytest.fixture(scope="session")
def remover() -> Iterator[Callable[[Path], None]]:
    """Removes directories while the tests go on: for two kernel trees, a minute or more."""
    children: list[subprocess.Popen[bytes]] = []
    yield lambda path: children.append(subprocess.Popen(["rm", "-rf", "--", os.fspath(path)]))
    for child in children:
        assert child.wait(300) == 0


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, remover: Callable[[Path], None]) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("kernel")
    yield Bench(root)
    remover(root)


@pytest.fixture(scope="module")
def source(bench: Bench) -> Path:
    # The host's own release: "linux-source" depends on the one with its version in its name.
    depends = process.output(["apt-cache", "depends", "linux-source"])
    found = re.search(r"linux-source-[0-9.]+", depends)
    if found is None:
        pytest.skip("the host's apt sources have no linux-source")
    pin = fetched(found[0], bench.root / "packages/pool")
    out = bench.out("source")
    spec = KernelSourceSpec(source=DebSource(pin=pin))
    kernel_source.run(spec, {"packages": bench.root / "packages"}, out, bench.context("a"))
    return out


@pytest.fixture(scope="module")
def built(bench: Bench, source: Path) -> Path:
    config = bench.config(WITH_A_MODULE, source, "config")
    out = bench.out("built")
    before = digest.of_tree(source / "linux/arch/um")
    spec = KernelSpec(tree=None, xstate=xstate_source())
    kernel.run(spec, {"source": source, "config": config}, out, bench.context("a"))
    assert digest.of_tree(source / "linux/arch/um") == before, "the source is only read"
    return out


@pytest.mark.slow
def test_every_requested_symbol_is_in_the_kernel_itself(built: Path) -> None:
    said = process.output([os.fspath(built / "linux"), "--showconfig"])
    assert kconfig.unmet(WITH_A_MODULE, kconfig.parse(said, "--showconfig")) == []
    assert kconfig.parse((built / "config").read_text(), "config") == kconfig.parse(said, "--showconfig")


@pytest.mark.slow
def test_the_release_is_the_kernels_own(built: Path) -> None:
    release = (built / "release").read_text()
    assert release == process.output([os.fspath(built / "linux"), "--version"])
    assert release.strip().count(".") >= 2 and "+" not in release


@pytest.mark.slow
def test_linux_is_stripped_and_says_nothing_about_its_build(built: Path, bench: Bench) -> None:
    sections = process.output(["readelf", "-SW", os.fspath(built / "linux")])
    assert ".symtab" not in sections and ".debug_info" not in sections
    data = (built / "linux").read_bytes()
    assert os.fsencode(bench.root) not in data
    assert b"umlbuild@umlbuild" in data and b"Tue Nov 14 22:13:20 UTC 2023" in data


@pytest.mark.slow
def test_a_kernel_before_7_is_dynamic_and_has_its_libraries_beside_it(built: Path) -> None:
    if kernel_is_static(built):
        pytest.skip("this host's own kernel source is a newer one")
    assert (built / "interpreter").read_text() == f"{linkage_of(built / 'linux').interpreter}\n"
    assert {path.name for path in (built / "lib").iterdir()} == {
        "ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "xstate.so",
    }  # fmt: skip


def kernel_is_static(built: Path) -> bool:
    return int((built / "release").read_text().split(".")[0]) >= 7


@pytest.mark.slow
def test_modules_are_where_modprobe_looks(built: Path, tmp_path: Path) -> None:
    release = (built / "release").read_text().strip()
    with tarfile.open(built / "modules.tar") as tar:
        names = tar.getnames()
        assert all(name.startswith(f"lib/modules/{release}") for name in names)
        assert not {f"lib/modules/{release}/build", f"lib/modules/{release}/source"} & set(names)
        untar.unpack(tar, tmp_path)
    (tmp_path / "modprobe.d").mkdir()  # not the host's, which may add options
    argv = ["modprobe", "-C", os.fspath(tmp_path / "modprobe.d"), "-d", os.fspath(tmp_path), "-S", release]
    found = process.output([*argv, "--show-depends", "dummy"])
    assert found.strip().endswith(f"lib/modules/{release}/kernel/drivers/net/dummy.ko")
    module = tmp_path / f"lib/modules/{release}/kernel/drivers/net/dummy.ko"
    assert ".debug_info" not in process.output(["readelf", "-SW", os.fspath(module)])


def test_a_request_that_cannot_stick_names_its_dependency(bench: Bench, source: Path) -> None:
    wanted = {**symbols.BASE, "NFT_NAT": "y", "UML_NET_VECTORS": "y", "HZ": "250"}
    with pytest.raises(StepFailed) as caught:
        bench.config(wanted, source, "refused")
    message = caught.value.message
    assert "3 symbols cannot have the requested value" in message
    assert "depends on NETFILTER, which is n (net/netfilter/Kconfig:" in message
    assert "UML_NET_VECTORS=y: this kernel has no such symbol; near: UML_NET_VECTOR" in message
    assert "cannot be set by itself; its value follows from: 100" in message
    assert not (bench.root / "refused/config").exists()


@pytest.mark.parametrize(
    "names",
    [
        "SYSTEMD EXT4 NETWORK IPV6", "SYSVINIT XFS", "BUSYBOX SQUASHFS OVERLAY", "SCRIPT EROFS OVERLAY",
        "SYSTEMD BTRFS HOSTFS",
    ],
)  # fmt: skip
def test_every_set_of_symbols_sticks(bench: Bench, source: Path, names: str) -> None:
    wanted, optional = dict(symbols.BASE), dict[str, str]()
    for name in names.split():
        wanted |= getattr(symbols, name)
        optional |= getattr(symbols, f"{name}_OPTIONAL", {})
    bench.config(wanted, source, f"sets-{names.replace(' ', '-')}", optional)


def test_the_router_fragment_sticks(bench: Bench, source: Path) -> None:
    file = Path(__file__).resolve().parents[2] / "recipes/router/kernel.config"
    wanted = {**symbols.BASE, **kconfig.parse(file.read_text(), "router/kernel.config")}
    bench.config(wanted, source, "router")


def test_a_given_configuration_is_the_base(bench: Bench, source: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.config"
    base.write_text("CONFIG_64BIT=y\nCONFIG_SMP=y\nCONFIG_MCONSOLE=y\nCONFIG_LOG_BUF_SHIFT=14\nCONFIG_PRINTK=y\n")
    name = digest.of_file(base)
    spec = KernelConfigSpec(
        tree=None, base="file", base_file=name, symbols=(("LOG_BUF_SHIFT", "15"), ("SYSFS", "y")),
        optional_symbols=(("NO_SUCH_SYMBOL", "y"),),
    )  # fmt: skip
    out = bench.out("from-file")
    kernel_config.run(spec, {"source": source}, out, bench.context("a", {name: base}))
    values = kconfig.parse((out / "config").read_text(), "config")
    assert (values["MCONSOLE"], values["LOG_BUF_SHIFT"], values["64BIT"]) == ("y", "15", "y")


def test_a_compilers_error_is_what_is_told(bench: Bench, source: Path) -> None:
    tree = bench.root / "broken"
    shutil.copytree(source / "linux", tree, symlinks=True, copy_function=os.link)
    main = tree / "init/do_mounts.c"
    text = main.read_text()
    main.unlink()
    main.write_text(text + "\nint umlbuild_broken(void) { return not_declared; }\n")
    config = bench.root / "config"
    if not config.exists():
        config = bench.config(WITH_A_MODULE, source, "config")
    context = bench.context("a", {"d": tree})
    with pytest.raises(ToolFailed) as caught:
        kernel.run(KernelSpec(tree="d", xstate=""), {"config": config}, bench.out("never"), context)
    assert "init/do_mounts.c" in caught.value.message
    assert "not_declared" in caught.value.message
    assert list((bench.root / "never").iterdir()) == []


@pytest.mark.slow
def test_two_builds_of_one_key_are_the_same_bytes(
    bench: Bench, source: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = process.find
    monkeypatch.setattr(process, "find", lambda name: None if name == "ccache" else find(name))
    elsewhere = bench.root / "another/longer/place"
    elsewhere.mkdir(parents=True)
    shutil.copytree(source, elsewhere / "source", symlinks=True)
    old = os.umask(0o077)
    try:
        out = bench.out("again")
        inputs = {"source": elsewhere / "source", "config": bench.root / "config"}
        kernel.run(KernelSpec(tree=None, xstate=xstate_source()), inputs, out, bench.context("another/work"))
    finally:
        os.umask(old)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(built) for path in built.rglob("*") if path.is_file())
    for name in files:
        assert digest.of_file(out / name) == digest.of_file(built / name), name


def test_the_distributions_kernel(tmp_path: Path) -> None:
    names = ("user-mode-linux", *LIBRARIES, COMPILER)
    pin, *libraries, compiler = (fetched(name, tmp_path / "packages/pool") for name in names)
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "work").mkdir()
    context = Context(work=tmp_path / "work", log=tmp_path / "log")
    spec = PrebuiltKernelSpec(pin=pin, libraries=tuple(libraries), compiler=compiler, xstate=xstate_source())
    prebuilt_kernel.run(spec, {"packages": tmp_path / "packages"}, out, context)
    assert kconfig.parse((out / "config").read_text(), "config")["UML"] == "y"
    release = (out / "release").read_text().strip()
    with tarfile.open(out / "modules.tar") as tar:
        members = tar.getnames()
    assert f"lib/modules/{release}/modules.dep" in members and len(members) > 500
