"""Rootfs: bootstrap Debian offline from the packages' repository, and take out whatever is of the host.

As root, as a user with subordinate ids, or (for the host's own release, mmdebstrap only) with fakechroot.
The bootstrapper works in a tmpfs of its own mount namespace where memory allows: fsync costs nothing
there, and nothing is left whatever happens. There is no network and no service starts. Root and
subordinate ids give byte-identical archives. fakechroot loses POSIX ACLs and cannot set file capabilities;
in a minimal root only /var/log/journal shows it, which is given back here what systemd gives it. A layer by
fakechroot unpacks its base without extended attributes, which are given back from the base, too.
Source: experiments A; measured again with 123 packages, all three ways equal.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from umlbuild.errors import HostError, StepFailed
from umlbuild.host import process, repository, residue, rootless, sandbox, tarball
from umlbuild.host.debian import installed, release_of_host, stanzas
from umlbuild.host.skeleton import skeleton
from umlbuild.host.tree import Tree
from umlbuild.specs.rootfs import RootfsSpec
from umlbuild.stages.context import Context

_TIMEOUT_S = 1800
_GROWTH = 10
"""Bytes of a root file system and of what its making leaves, for a byte of packages (measured: 4 to 7)."""

_OF_HOST = (
    # the build host's, or the bootstrapper's way to its repository
    "/etc/hostname", "/etc/resolv.conf", "/etc/apt/sources.list", "/etc/apt/sources.list.d/*",
    "/etc/apt/apt.conf.d/99mmdebstrap", "/etc/dpkg/dpkg.cfg.d/99mmdebstrap", "/debootstrap",
    # what one bootstrapper leaves and the other does not
    "/var/lib/apt/extended_states", "/var/lib/dpkg/cmethopt", "/var/lib/dpkg/arch",
)  # fmt: skip


def run(spec: RootfsSpec, inputs: Mapping[str, Path], out: Path, context: Context) -> None:
    """Fill `out` with `rootfs.tar` and `packages.txt`.

    Raises: HostError (no way to make owners, a missing program), ToolFailed, StepFailed.
    """
    packages, base = inputs["packages"], inputs.get("base")
    added = dict(_wanted(packages))
    wanted = {**dict(_listed(base) if base else ()), **added}
    missing = [name for name in spec.include if name not in wanted]
    if missing:
        raise StepFailed(f"{', '.join(missing)}: not among the packages", "resolve the recipe anew")
    if spec.method.makes == "unpacked":
        tree = _unpacked(packages, context)
    else:
        context.note(f"installing {len(added)} packages")
        tree = Tree.of(_bootstrap(spec, inputs, sorted(added), context))
        if base is not None and rootless.owners().missing is not None:
            _give_back_attributes(tree, Tree.of(base / "rootfs.tar"))
        _check_installed(wanted, installed(tree.text("/var/lib/dpkg/status")))
    context.note("writing the archive")
    tree.remove(*(f"/{path}" for pattern in _OF_HOST for path in tree.matching(pattern)))
    residue.clean(tree)
    tree.write(out / "rootfs.tar")
    (out / "packages.txt").write_text("".join(f"{name} {wanted[name]}\n" for name in sorted(wanted)))


def _wanted(packages: Path) -> Iterator[tuple[str, str]]:
    """(name, version) of every package of the repository."""
    for fields in stanzas(repository.index_of(packages).read_text()):
        yield fields["Package"], fields["Version"]


def _listed(base: Path) -> Iterator[tuple[str, str]]:
    """(name, version) of every package of a base."""
    for line in (base / "packages.txt").read_text().splitlines():
        name, version = line.split(" ")
        yield name, version


def _check_installed(wanted: Mapping[str, str], got: Mapping[str, str]) -> None:
    wrong = sorted(set(wanted.items()) ^ set(got.items()))
    if wrong:
        names = ", ".join(f"{name} {version}" for name, version in wrong[:8])
        raise StepFailed(f"the root does not hold exactly the pinned packages: {names}")


def _give_back_attributes(tree: Tree, base: Tree) -> None:
    """What the base has with extended attributes and the tree without, but else the same, as the base has it.

    fakeroot's way to a layer loses them. Source: `_UNPACK_FAKE` of kinds/bootstraps/mmdebstrap.py.
    """
    for was in base:
        now = tree.get(f"/{was.path}", follow=False) if was.xattrs else None
        if now is None or now.xattrs or now.size != was.size:
            continue
        if now.but(xattrs=was.xattrs, data=was.data) == was.but():
            tree.put(was)


def _bootstrap(spec: RootfsSpec, inputs: Mapping[str, Path], names: Sequence[str], context: Context) -> Path:
    """Run the bootstrapper; the archive that it (or tar) has made."""
    owners = rootless.owners()
    archive = context.work / "root.tar"
    if owners.missing is None:
        argv, place = spec.method.argv, Path("/tmp")
    else:
        argv, place = _fake_argv(spec, owners.missing, context), context.work.absolute()
    _require(argv[0], spec)
    makes_tar = spec.method.makes == "tar"
    seen_archive = Path("/tmp/work/root.tar") if owners.missing is None else archive.absolute()
    given = {"repository": context.work / "repository"}
    repository.inflate(inputs["packages"], given["repository"])
    if "base" in inputs:
        given["base"] = inputs["base"]
    seen = {name: path.absolute() if owners.missing else place / name for name, path in given.items()}
    words = {
        "{repository}": str(seen["repository"]),
        "{base}": str(seen["base"] / "rootfs.tar") if "base" in seen else "",
        "{target}": str(seen_archive if makes_tar else place / "root"),
        "{packages}": ",".join(names),
        "{unwanted}": "none" if "apt" in names else "apt",  # no package is called none
    }
    step = [_filled(word, words) for word in argv]
    env = dict(spec.method.environment)
    if owners.missing is not None:
        scratch = context.work / "scratch"
        scratch.mkdir(mode=0o755)
        context.run(step, env={**env, "TMPDIR": str(scratch)}, timeout_s=_TIMEOUT_S)
        return archive
    steps = [shlex.join(step)]
    if not makes_tar:
        steps.append(shlex.join(sandbox.packing("/tmp/root", str(seen_archive))))
    size = _GROWTH * _size_of(inputs["packages"]) + _size_of(given["repository"])  # of these apt makes copies
    if "base" in given:  # as a tree, and in the archive
        size += 2 * (given["base"] / "rootfs.tar").stat().st_size
    script = sandbox.script(steps, context.work, size=size, given=given)
    argv = (*owners.prefix(), "sh", "-c", script)
    context.run(argv, env={**env, "TMPDIR": "/tmp"}, timeout_s=_TIMEOUT_S, cwd=Path("/"))
    return archive


def _fake_argv(spec: RootfsSpec, missing: HostError, context: Context) -> tuple[str, ...]:
    """The command for a user without ids. Raises: HostError where pretending does not work."""
    # The host's C library is loaded into every program of the root, so both must be of one release.
    if spec.method.fake_argv is None or release_of_host() != spec.suite:
        raise HostError(f"bootstrapping {spec.suite} with {spec.bootstrap}: {missing.message}", missing.hint)
    if " " in str(context.work.absolute()):
        raise HostError(f"{context.work}: fakechroot cannot work in a path with a space", "set UMLBUILD_CACHE")
    for program in ("fakechroot", "fakeroot"):
        _require(program, spec, f" (or, better: {missing.hint})")
    return spec.method.fake_argv


def _require(program: str, spec: RootfsSpec, better: str = "") -> None:
    if process.find(program) is None:
        hint = f"sudo apt-get install {program}{better}"
        raise HostError(f"bootstrapping {spec.suite}: {program} is not installed", hint)


def _filled(word: str, words: Mapping[str, str]) -> str:
    for mark, value in words.items():
        word = word.replace(mark, value)
    return word


def _size_of(packages: Path) -> int:
    return sum(deb.stat().st_size for deb in (packages / "pool").iterdir())


def _unpacked(packages: Path, context: Context) -> Tree:
    """The packages' files over a skeleton, in order of their names."""
    tree = skeleton()
    for number, deb in enumerate(sorted((packages / "pool").iterdir())):
        archive = context.work / f"{number}.tar"
        context.run(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=archive, timeout_s=300)
        # Made anew, for a package's own headers name their owners.
        tree.merge(member.but() for member in tarball.read(archive))
    return tree
