"""Debian's apt, isolated from the host's: own lists, own sources, empty status, no hooks.

It resolves names to pins; it downloads no package and installs nothing. The only thing taken from the
host's apt.conf is how to fetch (proxies, time-outs). Signatures are always checked, against one keyring.
Version order and dependency solving are apt's and dpkg's, never ours.

Source: apt.conf(5) (APT_CONFIG is read before any parts), apt-get(8), apt-patterns(7), sources.list(5);
the patterns of the variants are mmdebstrap 1.3.5's own, so that it later selects what was pinned here.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umlbuild import digest
from umlbuild.errors import FetchError, LockError, ToolFailed
from umlbuild.host import kept, offline, process, releases
from umlbuild.host.mirrors import Mirrors, keyring, mirrors, urls_of
from umlbuild.host.names import nearest
from umlbuild.host.releases import ReleaseFile
from umlbuild.host.stall import Stall
from umlbuild.host.store import Store
from umlbuild.specs.packages import Archive, DebPin, LockedDeb

__all__ = ["Apt", "Mirrors", "keyring", "mirrors", "parse_uris"]

_UPDATE_S = 600
_STALLED_S = 60
"""Twice the time after which apt gives up a connection. Source: apt-transport-http(1), Acquire::http::Timeout."""
_QUERY_S = 120
_LOCK_S = 900
_COMPLAINT_LINES = 200
_ROLLING = ("sid", "unstable", "testing", "experimental", "rc-buggy")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")

MERGED = "usr-is-merged"
"""The package that says that /usr is merged. Source: init-system-helpers depends on usrmerge | usr-is-merged."""

_ESSENTIAL = "?narrow(?or(?archive(^{suite}$),?codename(^{suite}$)),?architecture({arch}),?essential)"
_PRIORITY = "?narrow(?or(?archive(^{suite}$),?codename(^{suite}$)),?architecture({arch}),?or({these}))"
_VARIANTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # variant: (priorities, packages), besides the essential ones
    "essential": ((), ()),
    "apt": ((), ("apt",)),
    "required": (("required",), ()),
    "minbase": (("required",), ("apt",)),
    "buildd": (("required",), ("apt", "build-essential")),
    "important": (("required", "important"), ("apt",)),
    "standard": (("required", "important", "standard"), ("apt",)),
}


@dataclass(frozen=True)
class Apt:
    """The packages of Debian's suites as one mirror has them now."""

    cache: Path
    """Lists are kept in `apt/` below it."""
    mirrors: Mirrors
    keyring: Path
    architecture: str
    components: tuple[str, ...] = ("main",)
    fresh_for_s: float = 300
    """How long lists count as new; a mirror changes every few hours."""
    note: Callable[[str], None] = lambda _text: None
    _seen: set[str] = field(default_factory=set, compare=False)
    read: set[ReleaseFile] = field(default_factory=set, compare=False)
    """The signed Release files that answers came from."""

    def resolve(
        self, suite: str, variant: str, packages: Sequence[str] = (), keep: Mapping[str, str] | None = None,
        *, alike: bool = False,
    ) -> tuple[LockedDeb, ...]:
        """Every package of a root file system: the variant's and `packages`, with all dependencies.

        `keep` are versions by name, to be chosen wherever the lists have them and dependencies allow. `alike`: they are
        of a root of the same suite and variant.

        Raises: LockError (no such suite or package, conflicts), FetchError (mirror, signature).
        """
        priorities, names = _VARIANTS[variant]
        patterns = [_ESSENTIAL.format(suite=_release_of(suite), arch=self.architecture)]
        if priorities:
            these = ",".join(f"?priority({name})" for name in priorities)
            arch = self.architecture
            patterns.append(_PRIORITY.format(suite=_release_of(suite), arch=arch, these=these))
        wanted = [*patterns, *names, *self._checked(suite, packages)]
        if alike and keep and MERGED in keep and "usrmerge" not in packages:
            # What depends on it is essential, so it would be wanted again.
            return self._install(suite, [*wanted, MERGED], keep)
        pins = self._install(suite, wanted, keep)
        if "usrmerge" in {pin.name for pin in pins} and "usrmerge" not in packages:
            # A new root is merged from the start: the empty package that says so spares usrmerge and perl.
            pins = self._install(suite, [*wanted, MERGED], keep)
        return pins

    def closure(
        self, suite: str, packages: Sequence[str], keep: Mapping[str, str] | None = None
    ) -> tuple[LockedDeb, ...]:
        """Some packages with all their dependencies, as on a machine that has nothing. `keep`, raises: as `resolve`."""
        return self._install(suite, self._checked(suite, packages), keep)

    def pin(self, suite: str, package: str, version: str | None = None) -> LockedDeb:
        """One package without its dependencies, the newest unless a version is given. Raises: as `resolve`."""
        self._checked(suite, [package])
        wanted = f"{package}={version}" if version else package
        with self._ready(suite) as env:
            try:
                text = process.output(
                    ["apt-get", "download", "--print-uris", "-qq", wanted],
                    env=env, log=self._log(suite), timeout_s=_QUERY_S,
                )  # fmt: skip
            except ToolFailed as error:
                have = self._versions(env, suite, package)
                if not have:
                    raise LockError(f"{package}: is only a virtual package in {suite}", "name a real one") from error
                raise LockError(f"{package}: {suite} has no version {version}", f"it has {', '.join(have)}") from error
            return self._located(env, suite, text)[0]

    def newest(self, suite: str, pattern: str) -> str:
        """The name of the package with the highest version among those whose whole name matches `pattern`.

        Raises: LockError if there is none; as `resolve`.
        """
        regex = re.compile(pattern)
        names = [name for name in self._names(suite) if regex.fullmatch(name)]
        with self._ready(suite) as env:
            versions = {name: self._versions(env, suite, name) for name in sorted(names)}
        candidates = {name: have[0] for name, have in versions.items() if have}
        if not candidates:
            raise LockError(f"{suite}: no package is called {pattern}", "name another suite or version")
        return max(candidates, key=lambda name: functools.cmp_to_key(compare_versions)(candidates[name]))

    def _versions(self, env: dict[str, str], suite: str, package: str) -> list[str]:
        """The versions of a package, apt's candidate first."""
        argv = ["apt-cache", "madison", package]
        text = process.output(argv, env=env, log=self._log(suite), timeout_s=_QUERY_S)
        return list(dict.fromkeys(line.split("|")[1].strip() for line in text.splitlines() if "|" in line))

    def _install(
        self, suite: str, wanted: Sequence[str], keep: Mapping[str, str] | None = None
    ) -> tuple[LockedDeb, ...]:
        keep = dict(keep or {})
        with self._ready(suite) as env:
            while True:
                try:
                    argv = ["apt-get", "install", "--print-uris", "-qq", *self._kept(suite, keep), "--", *wanted]
                    text = process.output(argv, env=env, log=self._log(suite), timeout_s=_QUERY_S)
                    return self._located(env, suite, text)
                except ToolFailed:
                    complaint = self._why(env, suite, wanted, keep)
                if not keep:
                    raise LockError(
                        f"resolving the packages of {suite}: apt cannot install them together:\n"
                        + "\n".join(f"  | {line}" for line in complaint),
                        "leave one of them out, or take them from another suite",
                    ) from None
                released = kept.in_the_way(complaint, keep) or set(keep)
                names = "the locked versions" if len(released) == len(keep) else ", ".join(sorted(released))
                self.note(f"{suite}: apt cannot keep {names}; resolving anew without")
                keep = {name: version for name, version in keep.items() if name not in released}

    def _kept(self, suite: str, keep: Mapping[str, str]) -> list[str]:
        """apt-get's options that make it choose these versions."""
        path = self._home(suite) / "preferences"
        kept.write(keep, path)
        return ["-o", f"Dir::Etc::preferences={path}"]

    def _located(self, env: dict[str, str], suite: str, uris: str) -> tuple[LockedDeb, ...]:
        """The pins in the output of `--print-uris`, with the suites that have them."""
        pins = parse_uris(uris, self._first)
        argv = ["apt-cache", "madison", "--", *(pin.name for pin in pins)]
        madison = process.output(argv, env=env, log=self._log(suite), timeout_s=_QUERY_S)
        suites = suites_of(suite)
        found = releases.with_suites(pins, madison, suites, self._first)
        self.read.update(releases.read(self._home(suite) / "state/lists", suites))
        return found

    @property
    def _first(self) -> Mirrors:
        """The mirrors that apt itself reads."""
        return {archive: urls_of(value)[0] for archive, value in self.mirrors.items()}

    def _why(self, env: dict[str, str], suite: str, wanted: Sequence[str], keep: Mapping[str, str]) -> list[str]:
        """What apt says about an impossible set: unmet dependencies come on its standard output."""
        log = self._log(suite).with_name("why")
        log.unlink(missing_ok=True)
        with contextlib.suppress(ToolFailed):
            argv = ["apt-get", "install", "-q", "-s", *self._kept(suite, keep), "--", *wanted]
            process.run(argv, log=log, env=env, timeout_s=_QUERY_S)
        return [line for line in process.tail_of(log, _COMPLAINT_LINES) if line.startswith(("E:", " "))]

    def _names(self, suite: str) -> list[str]:
        with self._ready(suite) as env:
            argv = ["apt-cache", "pkgnames"]
            return process.output(argv, env=env, log=self._log(suite), timeout_s=_QUERY_S).split()

    def _checked(self, suite: str, packages: Sequence[str]) -> list[str]:
        """The names, all known: apt would take `foo-` for "remove foo", and a regex for many packages."""
        known = set(self._names(suite))
        unknown = [name for name in packages if name not in known]
        if unknown:
            rows = [f"{name}: {suite} has no such package{nearest(name, sorted(known))}" for name in unknown]
            raise LockError("\n".join(rows), f"look for the name with `apt-cache search` in {suite}")
        return list(packages)

    @contextlib.contextmanager
    def _ready(self, suite: str) -> Iterator[dict[str, str]]:
        """Hold the suite's apt directory, its lists not older than `fresh_for_s`; yields the environment."""
        if not _SUITE.fullmatch(suite):
            raise LockError(f"{suite!r} is no name of a suite", 'such as "bookworm" or "trixie-backports"')
        home = self._home(suite)
        with Store(self.cache).locked("apt", home.name, timeout_s=_LOCK_S):
            env = {"APT_CONFIG": str(home / "apt.conf")}
            if suite not in self._seen:
                self._write_config(home, suite)
                stamp = home / "updated"
                if not stamp.exists() or time.time() - stamp.stat().st_mtime > self.fresh_for_s:
                    self._update(home, suite, env)
                    stamp.touch()
                self._seen.add(suite)
            yield env

    def _home(self, suite: str) -> Path:
        facts = [suite, self.architecture, self.components, dict(self._first), digest.of_file(self.keyring)]
        return self.cache.absolute() / "apt" / f"{suite}-{digest.of_json(facts)[:16]}"

    def _log(self, suite: str) -> Path:
        return self._home(suite) / "log"

    def _write_config(self, home: Path, suite: str) -> None:
        for name in ("state/lists/partial", "cache/archives/partial", "etc"):
            (home / name).mkdir(parents=True, exist_ok=True)
        if not (home / "state/status").exists():  # a newer one would make apt's cache an old one
            (home / "state/status").touch()
        (home / "log").unlink(missing_ok=True)
        (home / "apt.conf").write_text(_config(home, suite, self.architecture) + _fetch_settings())
        if not (home / "updated").exists():
            self._write_sources(home, suites_of(suite))

    def _write_sources(self, home: Path, suites: Sequence[tuple[Archive, str]]) -> None:
        options = f"signed-by={self.keyring} arch={self.architecture}"
        lines = [
            f"deb [{options}] {self._first[archive]} {name} {' '.join(self.components)}\n"
            for archive, name in suites if archive in self.mirrors
        ]  # fmt: skip
        (home / "etc/sources.list").write_text("".join(lines))

    def _update(self, home: Path, suite: str, env: dict[str, str]) -> None:
        """Fetch the lists. A stable suite must have its updates and security; a rolling one has none."""
        offline.refuse(f"reading the package lists of {suite}")
        self.note(f"reading the package lists of {suite}")
        suites = suites_of(suite)
        self._write_sources(home, suites)
        try:
            self._fetch_lists(home, suite, env)
        except LockError:
            base = [row for row in suites if row[1] in (_release_of(suite), suite)]
            if base == suites:
                raise
            self._write_sources(home, base)
            self._fetch_lists(home, suite, env)
            if _is_stable(home / "state/lists"):
                missing = ", ".join(name for _, name in suites if (_, name) not in base)
                raise LockError(
                    f"{suite}: the mirror lacks one of {missing}, which a stable release must have",
                    "choose another mirror; UMLBUILD_SECURITY_MIRROR names the one for security",
                ) from None

    def _fetch_lists(self, home: Path, suite: str, env: dict[str, str]) -> None:
        log = home / "log"
        log.unlink(missing_ok=True)
        argv = ["apt-get", "update", "-qq", "--error-on=any"]
        try:
            process.run(argv, log=log, env=env, timeout_s=_UPDATE_S, watch=Stall(home, _STALLED_S))
        except ToolFailed as error:
            raise self._worded(suite, log.read_text(errors="replace"), error) from error

    def _worded(self, suite: str, text: str, error: ToolFailed) -> LockError | FetchError:
        """What a failed `apt-get update` means."""
        where = f"{suite} on {self._first['debian']}"
        if re.search(r"NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|is not signed|invalid signature|NODATA", text):
            return FetchError(
                f"{where}: its signature does not verify with {self.keyring}:\n" + _quoted(text),
                "use a newer debian-archive-keyring, or set UMLBUILD_KEYRING to the archive's keyring",
            )
        if re.search(r"is expired|is not valid yet", text):
            return FetchError(
                f"{where}: its signed Release file is out of date:\n" + _quoted(text),
                'use a mirror that is kept up, or put `Acquire::Check-Valid-Until "false";` into apt.conf',
            )
        if re.search(r"does not have a (Release|component)|404 |doesn't have the component", text):
            return LockError(
                f"{where}: the mirror has no such suite or component:\n" + _quoted(text),
                'the suites are e.g. "bookworm", "trixie", "trixie-backports", "sid"',
            )
        return FetchError(
            f"{where}: the mirror cannot be read:\n" + (_quoted(text) or str(error)),
            "check the network and the proxy, or name another mirror with UMLBUILD_MIRROR",
        )


def parse_uris(text: str, mirrors: Mirrors) -> tuple[DebPin, ...]:
    """The pins in the output of `--print-uris`, sorted by name. Raises: LockError without a sha256."""
    pins = []
    for line in text.splitlines():
        row = _URI.match(line)
        if row is None:
            raise LockError(f"apt names no sha256 for a package: {line}", "use another mirror")
        # The file name is name_version_architecture.deb, quoted; in a pool the version has no epoch, here it has.
        name, version, rest = urllib.parse.unquote(row["file"]).split("_")
        archive, path = _place_of(row["uri"], mirrors)
        pins.append(
            DebPin(
                name=name, version=version, architecture=rest.removesuffix(".deb"), size=int(row["size"]),
                sha256=row["sha256"], path=path, archive=archive,
            )
        )  # fmt: skip
    return tuple(sorted(pins, key=lambda pin: pin.name))


def compare_versions(a: str, b: str) -> int:
    """Debian's order of versions (dpkg's own): negative, 0 or positive."""
    if process.run(["dpkg", "--compare-versions", a, "lt", b], log=None, timeout_s=30, ok=(0, 1)) == 0:
        return -1
    return 0 if a == b else 1


def native_architecture() -> str:
    """The architecture of this machine, as dpkg calls it."""
    return process.output(["dpkg", "--print-architecture"]).strip()


def _place_of(uri: str, mirrors: Mirrors) -> tuple[Archive, str]:
    for archive, base in mirrors.items():
        if uri.startswith(base):
            return archive, urllib.parse.unquote(uri.removeprefix(base))
    raise AssertionError(f"{uri} is on none of the mirrors")


def _release_of(suite: str) -> str:
    """The release that a suite extends: trixie-backports adds to trixie."""
    return re.sub(r"-backports(-sloppy)?$", "", suite)


def suites_of(suite: str) -> list[tuple[Archive, str]]:
    """The suites that make up one, with its updates and security fixes: what is read to resolve anything of it."""
    release = _release_of(suite)
    if release in _ROLLING:
        return [("debian", release)]
    rows: list[tuple[Archive, str]] = [("debian", release), ("debian", f"{release}-updates")]
    rows.append(("security", f"{release}-security"))
    return rows if release == suite else [*rows, ("debian", suite)]


def _is_stable(lists: Path) -> bool:
    """Whether a signed Release file among the lists says that it is of a stable release."""
    for path in lists.glob("*_InRelease"):
        if re.search(r"^Suite: (old)*stable$", path.read_text(errors="replace"), re.MULTILINE):
            return True
    return False


def _config(home: Path, suite: str, architecture: str) -> str:
    # ForceEssential: else apt calls itself essential.
    release = f'APT::Default-Release "{suite}";\n' if suite != _release_of(suite) else ""
    return f"""\
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
pkgCacheGen::ForceEssential ",";
{release}Dir::State "{home}/state";
Dir::State::status "{home}/state/status";
Dir::Cache "{home}/cache";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "{home}/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
Acquire::Retries "3";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
"""


@functools.cache
def _fetch_settings() -> str:
    """The host's settings of how to fetch: proxies, time-outs, validity; never "insecure is fine"."""
    dump = process.output(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"])
    kept = r"Acquire::((http|https|ftp)::|Retries |Check-Valid-Until |Check-Date |Max-ValidTime)"
    return "".join(f"{line}\n" for line in dump.splitlines() if re.match(kept, line))


def _quoted(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines() if line.startswith(("E:", "W:", "Err:")))
