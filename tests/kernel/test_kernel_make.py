"""Calling the kernel's make, archiving modules, and the prebuilt kernel, with small stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sourcekit import fetched

from umlbuild.errors import HostError, StepFailed, ToolFailed
from umlbuild.host import modules, process
from umlbuild.host.identity import compilers_library
from umlbuild.host.kbuild import Kbuild, ccache_directory, first_errors, source_tree, uses_hidden_tools
from umlbuild.plan.kernel import xstate_source
from umlbuild.specs.kernel import PrebuiltKernelSpec
from umlbuild.specs.packages import DebPin
from umlbuild.stages import prebuilt_kernel
from umlbuild.stages.context import Context

MAKE_OUTPUT = """\
  CC      kernel/fork.o
../kernel/fork.c: In function 'x':
../kernel/fork.c:1:2: error: 'y' undeclared (first use in this function)
    1 |  y
      |  ^
  CC      kernel/exit.o
make[3]: *** [scripts/Makefile.build:250: kernel/fork.o] Error 1
make[2]: *** [Makefile:2000: kernel] Error 2
make[1]: *** [Makefile:240: __sub-make] Error 2
make: *** [Makefile:240: __sub-make] Error 2
"""


def test_the_compilers_own_error_is_found() -> None:
    assert first_errors(MAKE_OUTPUT) == [
        "../kernel/fork.c:1:2: error: 'y' undeclared (first use in this function)", "    1 |  y", "      |  ^",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "/usr/bin/ld: x.o: undefined reference to `foo'",
        "cc1: fatal error: opening output file: No space left on device",
        "make[1]: *** No rule to make target 'x'.  Stop.",
        "*** The source tree is not clean, please run 'make ARCH=um mrproper'",
        'crypto/Kconfig:1352: can\'t open file "arch/arm/crypto/Kconfig"',
        "/usr/bin/ld: cannot find -lpcap: No such file or directory",
    ],
)
def test_other_causes_are_found(line: str) -> None:
    assert first_errors(f"  CC x.o\n{line}\n") == [line]


def test_output_without_a_known_cause_gives_nothing() -> None:
    assert first_errors("  CC      lib/errors.o\nall well\n") == []


def kernel(tmp_path: Path, makefile: str) -> Kbuild:
    source = tmp_path / "src"
    source.mkdir()
    (source / "Makefile").write_text(makefile)
    objects = tmp_path / "obj"
    objects.mkdir()
    return Kbuild(source, objects, tmp_path / "log", cores=3)


def test_a_failed_make_tells_the_cause_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text(MAKE_OUTPUT)
    kbuild = kernel(tmp_path, f"linux:\n\t@cat {tmp_path}/out.txt; exit 1\n")
    kbuild.log.write_text("old: error: of another step\n")
    with pytest.raises(ToolFailed) as caught:
        kbuild.make("linux")
    assert caught.value.tail[0].endswith("'y' undeclared (first use in this function)")
    assert "another step" not in caught.value.message
    assert str(kbuild.log) in caught.value.message
    assert "ARCH=um" in caught.value.argv and f"O={kbuild.objects}" in caught.value.argv


def test_what_make_is_told_is_the_same_wherever_and_whenever_it_runs(tmp_path: Path) -> None:
    kbuild = kernel(tmp_path, "linux:\n\t@env | sort > $(O)/env; echo '$(KCFLAGS)|$(RUSTC)' > $(O)/flags\n")
    kbuild.make("linux")
    env = dict(line.split("=", 1) for line in (kbuild.objects / "env").read_text().splitlines() if "=" in line)
    assert env["KBUILD_BUILD_TIMESTAMP"] == "Tue Nov 14 22:13:20 UTC 2023"
    assert (env["KBUILD_BUILD_USER"], env["KBUILD_BUILD_HOST"], env["KBUILD_BUILD_VERSION"]) == (
        "umlbuild", "umlbuild", "1",
    )  # fmt: skip
    assert (env["LC_ALL"], env["TZ"], env["LOCALVERSION"]) == ("C", "UTC", "")
    assert (kbuild.objects / "flags").read_text() == (
        f"-ffile-prefix-map={kbuild.source}=/usr/src/linux "
        f"-ffile-prefix-map={kbuild.objects}=/usr/src/build|false\n"
    )
    kbuild.make("linux", hide=False)
    assert (kbuild.objects / "flags").read_text().endswith("|\n")


@pytest.mark.parametrize("name", ["with space", "with:colon"])
def test_directories_that_make_cannot_work_in(tmp_path: Path, name: str) -> None:
    with pytest.raises(HostError, match="make cannot work below a directory with a space or colon") as caught:
        Kbuild(tmp_path, tmp_path / name, tmp_path / "log")
    assert "UMLBUILD_CACHE" in caught.value.hint


def test_all_missing_packages_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = process.find
    monkeypatch.setattr(process, "find", lambda name: None if name in ("flex", "bc", "ld") else find(name))
    with pytest.raises(HostError) as caught:
        Kbuild(tmp_path, tmp_path, tmp_path / "log")
    assert caught.value.hint == "apt-get install bc binutils flex"


def test_ccache_is_kept_beside_the_work_directory_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "find", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("CCACHE_DIR", raising=False)
    assert ccache_directory(tmp_path / "cache/work/kernel.x") == tmp_path / "cache/ccache"
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "mine"))
    assert ccache_directory(tmp_path / "cache/work/kernel.x") == tmp_path / "mine"
    monkeypatch.setattr(process, "find", lambda name: None)
    assert ccache_directory(tmp_path / "cache/work/kernel.x") is None


def test_a_tree_that_was_built_in_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("")
    with pytest.raises(StepFailed) as caught:
        source_tree("d", {"d": tmp_path}, None)
    assert caught.value.hint == f"make -C {tmp_path} ARCH=um mrproper"
    with pytest.raises(StepFailed, match="not there any more"):
        source_tree("e", {"d": tmp_path}, None)


@pytest.mark.parametrize(
    ("config", "used"), [({}, False), ({"RUST": "n"}, False), ({"RUST": "y"}, True), ({"DEBUG_INFO_BTF": "y"}, True)]
)
def test_tools_that_leave_only_their_version_are_hidden(config: dict[str, str], used: bool) -> None:
    assert uses_hidden_tools(config) is used


def staged(root: Path, umask: int) -> Path:
    old = os.umask(umask)
    try:
        tree = root / "lib/modules/7.3.4/kernel/drivers"
        tree.mkdir(parents=True)
        (tree / "b.ko").write_bytes(b"")
        (tree / "a.ko").write_bytes(b"")
        for name in ("modules.order", "modules.builtin"):
            (root / "lib/modules/7.3.4" / name).write_text("")
        (root / "lib/modules/7.3.4/build").symlink_to("/home/somebody/build")
        (root / "lib/modules/7.3.4/source").symlink_to("/home/somebody/src")
    finally:
        os.umask(old)
    return root


needs_depmod = pytest.mark.skipif(process.find("depmod") is None, reason="no depmod (package kmod)")


@needs_depmod
def test_archive_of_modules_shows_nothing_of_the_host(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tar", tmp_path / "other.tar"
    modules.archive(staged(tmp_path / "1", 0o022), "7.3.4", one, log=tmp_path / "log")
    modules.archive(staged(tmp_path / "2", 0o077), "7.3.4", other, log=tmp_path / "log")
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as tar:
        members = {member.name: member for member in tar}
    assert min(members) == "lib/modules/7.3.4", "nothing for the directories above"
    assert {"modules.dep", "modules.dep.bin"} <= {Path(name).name for name in members}
    assert not {"lib/modules/7.3.4/build", "lib/modules/7.3.4/source"} & set(members)
    assert {(m.uid, m.gid, m.mtime) for m in members.values()} == {(0, 0, process.EPOCH)}
    assert list(members) == sorted(members, key=lambda name: name.split("/"))


def test_archive_without_depmod_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = staged(tmp_path / "1", 0o022)
    monkeypatch.setattr(process, "find", lambda name: None)
    with pytest.raises(HostError) as caught:
        modules.archive(staging, "7.3.4", tmp_path / "x", log=tmp_path / "log")
    assert caught.value.hint == "apt-get install kmod"


def test_empty_archive_is_an_archive(tmp_path: Path) -> None:
    modules.empty_archive(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == []
    assert subprocess.run(["tar", "-tf", tmp_path / "x.tar"], timeout=60, check=True, capture_output=True).stdout == b""


# Not a shell script: the stage reads how the program is linked, and starts it with the packages' loader.
SAYS = """
#include <stdio.h>
#include <string.h>
int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "--version")) return puts("6.1.176") < 0;
    if (count == 2 && !strcmp(words[1], "--showconfig")) return puts("CONFIG_UML=y") < 0;
    return 9;
}
"""
LIBC = ("ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0")
GCC = ("libgcc_s.so.1",)


@dataclass
class Archive:
    """A package archive with a small user-mode-linux, and the directories of a run of the stage."""

    root: Path

    def __post_init__(self) -> None:
        for name in ("entry/pool", "out", "work"):
            (self.root / name).mkdir(parents=True)
        self.context = Context(work=self.root / "work", log=self.root / "log")
        self.out = self.root / "out"

    def package(self, name: str, tree: Path) -> DebPin:
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 6.1um4\nArchitecture: all\nMaintainer: x <x@example>\nDescription: x\n"
        )
        deb = self.root / f"entry/pool/{name}.deb"
        build = ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(deb)]
        subprocess.run(build, check=True, timeout=60, stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)
        return DebPin(
            name=name, version="6.1um4", architecture="amd64", size=1, sha256="0" * 64, path=f"pool/{deb.name}"
        )

    def kernel(self, program: str = SAYS, release: str = "6.1.176") -> DebPin:
        root = self.root / "uml"
        staged(root / "usr", 0o022)
        (root / "usr/lib/uml").mkdir()
        (root / "usr/lib/modules/7.3.4").rename(root / "usr/lib/modules" / release)
        (root / "usr/lib/modules").rename(root / "usr/lib/uml/modules")
        (root / "usr/bin").mkdir()
        argv = ["gcc", "-x", "c", "-", "-o", str(root / "usr/bin/linux.uml")]
        subprocess.run(argv, input=program.encode(), check=True, timeout=60)
        return self.package("user-mode-linux", root)

    def libraries(self, package: str, names: Sequence[str], directory: str) -> DebPin:
        """A package with copies of this host's libraries, a byte longer so that they are told apart."""
        where = self.root / package / directory
        where.mkdir(parents=True)
        for name in names:
            found = compilers_library(name)
            assert found is not None
            (where / name).write_bytes(found.read_bytes() + b"!")
        return self.package(package, self.root / package)

    def run(self, kernel: DebPin, *libraries: DebPin) -> None:
        compiler = fetched("tcc", self.root / "entry/pool")
        spec = PrebuiltKernelSpec(pin=kernel, libraries=libraries, compiler=compiler, xstate=xstate_source())
        prebuilt_kernel.run(spec, {"packages": self.root / "entry"}, self.out, self.context)


@pytest.fixture
def debs(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@needs_depmod
@pytest.mark.parametrize("directory", ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"])
def test_prebuilt_has_the_shape_of_a_built_kernel_and_its_libraries(debs: Archive, directory: str) -> None:
    debs.run(debs.kernel(), debs.libraries("libc6", LIBC, directory), debs.libraries("libgcc-s1", GCC, directory))
    out = debs.out
    assert sorted(path.name for path in out.iterdir()) == [
        "config", "interpreter", "lib", "linux", "modules.tar", "release",
    ]  # fmt: skip
    assert (out / "linux").stat().st_mode & 0o777 == 0o755
    assert (out / "release").read_text() == "6.1.176\n"
    assert (out / "config").read_text() == "CONFIG_UML=y\n"
    with tarfile.open(out / "modules.tar") as tar:
        assert "lib/modules/6.1.176/modules.dep" in tar.getnames()
    assert (out / "interpreter").read_text() == "/lib64/ld-linux-x86-64.so.2\n"
    found = {path.name: path.lstat().st_mode for path in (out / "lib").iterdir()}
    assert found == {
        "ld-linux-x86-64.so.2": 0o100755, "libc.so.6": 0o100644, "libgcc_s.so.1": 0o100644, "xstate.so": 0o100644,
    }  # fmt: skip
    theirs = {path.name for path in (out / "lib").iterdir() if path.read_bytes().endswith(b"!")}
    assert theirs == {*found} - {"xstate.so"}, "of the packages, not the host"


def test_a_library_that_no_package_has_is_named(debs: Archive) -> None:
    with pytest.raises(StepFailed, match=r"C library beside the kernel: libgcc_s\.so\.1 is not there"):
        debs.run(debs.kernel(), debs.libraries("libc6", LIBC, "usr/lib/x86_64-linux-gnu"))


def test_a_link_that_leads_to_the_hosts_library_is_not_followed(debs: Archive) -> None:
    libc = debs.libraries("libc6", LIBC, "usr/lib/x86_64-linux-gnu")
    where = debs.root / "linked/usr/lib/x86_64-linux-gnu"
    where.mkdir(parents=True)
    (where / GCC[0]).symlink_to(compilers_library(GCC[0]) or "")
    with pytest.raises(StepFailed, match=r"libgcc_s\.so\.1 is not there"):
        debs.run(debs.kernel(), libc, debs.package("libgcc-s1", debs.root / "linked"))


def test_a_failing_prebuilt_kernel_is_told_with_its_words(debs: Archive) -> None:
    broken = '#include <stdio.h>\nint main(void) { fputs("broken\\n", stderr); return 3; }'
    both = [debs.libraries(name, names, "lib/x86_64-linux-gnu") for name, names in (("c", LIBC), ("gcc", GCC))]
    with pytest.raises(ToolFailed, match="broken"):
        debs.run(debs.kernel(broken), *both)


def test_modules_of_another_release_are_refused(debs: Archive) -> None:
    both = [debs.libraries(name, names, "lib/x86_64-linux-gnu") for name, names in (("c", LIBC), ("gcc", GCC))]
    with pytest.raises(StepFailed, match=r"has no modules of its own kernel 6\.1\.176"):
        debs.run(debs.kernel(release="6.1.99"), *both)
