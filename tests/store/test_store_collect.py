"""Collecting by last use, what is in use, what is damaged, and caches of others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from umlbuild import cli
from umlbuild.errors import UserError
from umlbuild.host import collect, inuse, shared, size, sparse
from umlbuild.host.store import MANIFEST, Store
from umlbuild.plan.step import Step
from umlbuild.specs.model import Spec
from umlbuild.tasks import limit
from umlbuild.tasks.make import Site, make

MIB = 1 << 20
NOW = 1_700_000_000


def key(letter: str) -> str:
    return letter * 64


def fill(store: Store, letter: str, used: int = 0, mib: int = 1, stage: str = "one") -> Path:
    with store.filling(stage, key(letter)) as out:
        (out / "file").write_bytes(os.urandom(mib * MIB))
    entry = store.path(stage, key(letter))
    os.utime(entry / MANIFEST, (NOW + used, NOW + used))
    return entry


def names(done: collect.Collected) -> str:
    return "".join(item.name[0] for item in done.removed)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.mark.parametrize(
    ("words", "count"), [("20G", 20 << 30), ("1.5M", 3 * MIB // 2), ("7", 7), ("2 KiB", 2048), ("0", 0)]
)
def test_sizes(words: str, count: int) -> None:
    assert size.parse(words, "x") == count


@pytest.mark.parametrize("words", ["", "many", "-1", "1X", "G"])
def test_no_sizes(words: str) -> None:
    with pytest.raises(UserError, match="--max-size"):
        size.parse(words, "--max-size")


def test_least_recently_used_go_first(store: Store) -> None:
    for letter, used in (("a", 3), ("b", 1), ("c", 2), ("d", 4)):
        fill(store, letter, used)
    dry = collect.collect(store, limit=5 * MIB // 2, dry_run=True)
    assert (names(dry), len(list((store.root / "one").iterdir()))) == ("bc", 4)
    done = collect.collect(store, limit=5 * MIB // 2)
    assert (names(done), [e.name[0] for e in sorted((store.root / "one").iterdir())]) == ("bc", ["a", "d"])
    assert 2 * MIB <= done.freed < 3 * MIB
    assert done.left == collect.usage_of(store).size
    store.used("one", key("a"))
    assert names(collect.collect(store, limit=3 * MIB // 2)) == "d"


def test_kept_and_old(store: Store) -> None:
    fill(store, "a", 1)
    fill(store, "b", 2)
    fill(store, "c")
    store.used("one", key("c"))
    done = collect.collect(store, older_than_s=86_400, keep={key("a")})
    assert (names(done), store.has("one", key("a")), store.has("one", key("c"))) == ("b", True, True)


def test_what_is_in_use_stays(store: Store) -> None:
    for letter in "abc":
        fill(store, letter)
    code = (
        "import sys; from pathlib import Path; from umlbuild.host import inuse; from umlbuild.host.store import Store\n"
        f"inuse.register(Store(Path({str(store.root)!r})), [{key('b')!r}])\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    build = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert build.stdout is not None
    assert build.stdin is not None
    try:
        assert build.stdout.readline() == "ready\n"
        with store.locked("one", key("a")):
            done = collect.collect(store, limit=0)
        assert (names(done), {item.name[0] for item in done.busy}) == ("c", {"a", "b"})
        build.kill()  # its registration is stale then
        build.wait(10)
        assert names(collect.collect(store, limit=0)) == "ab"
        assert list((store.root / "builds").iterdir()) == []
    finally:
        build.kill()
        build.wait(10)
        build.stdin.close()
        build.stdout.close()


def test_a_package_is_freed_with_its_last_name(store: Store) -> None:
    entry = fill(store, "a", used=-5)
    (store.root / "downloads/aa").mkdir(parents=True)
    os.link(entry / "file", store.root / f"downloads/aa/{key('a')}.deb")
    assert collect.usage_of(store).size < 3 * MIB // 2
    done = collect.collect(store, limit=MIB // 2)
    assert [item.group for item in done.removed] == ["one", "downloads"]
    assert done.left == 0


def test_ccache_and_lists_are_collected_too(store: Store) -> None:
    for name, used in (("ccache/0/1/objectR", 1), ("apt/bookworm-1/lists", 2)):
        path = store.root / name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(MIB))
        os.utime(path, (NOW + used, NOW + used))
        os.utime(path.parent, (NOW, NOW))
    (store.root / "ccache/stats").write_text("")
    assert [item.group for item in collect.collect(store, limit=0).removed] == ["ccache", "apt"]
    assert not (store.root / "apt/bookworm-1").exists()
    assert (store.root / "ccache/stats").exists()


def test_damage_is_found_and_discarded(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("UMLBUILD_CACHE", str(store.root))
    fill(store, "a")
    flipped = fill(store, "b") / "file"
    with store.filling("one", key("c")) as out:
        (out / "tree/deep").mkdir(parents=True)
        (out / "tree/deep/file").write_text("good")
    (store.root / "downloads/dd").mkdir(parents=True)
    (store.root / f"downloads/dd/{key('d')}.deb").write_text("not what its name promises")
    with store.filling("packages", key("e")) as out:
        (out / "pool").mkdir()
        os.link(store.root / f"downloads/dd/{key('d')}.deb", out / "pool/d.deb")
    with flipped.open("r+b") as file:
        file.write(bytes(reversed(file.read(8))))
        file.seek(0)
        file.write(b"\0" * 8)
    (store.path("one", key("c")) / "tree/deep/file").write_text("evil")
    assert cli.run(["du", "--check"]) == 1
    told = capsys.readouterr().out
    assert f"damaged: one {'b' * 12}: file" in told
    assert f"damaged: one {'c' * 12}: tree" in told
    assert f"damaged: downloads {'d' * 12}" in told
    assert cli.run(["gc", "--check"]) == 0
    assert [store.has("one", key(letter)) for letter in "abc"] == [True, False, False]
    assert list(store.root.glob("downloads/*/*")) == []
    assert not store.has("packages", key("e"))
    assert cli.run(["du", "--check"]) == 0
    assert "nothing is damaged" in capsys.readouterr().out


def test_du_of_a_cache_with_directories_of_others(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store, "a", 1)
    (store.root / "apt/suite/partial").mkdir(parents=True)
    monkeypatch.setenv("UMLBUILD_CACHE", str(store.root))
    scan = os.scandir

    def refusing(path: Any) -> Any:
        if os.fspath(path).endswith("partial"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert cli.run(["du"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^one +1 ", told, re.MULTILINE) and "in all" in told


def test_gc_must_be_told_what_may_go(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("UMLBUILD_CACHE", str(store.root))
    monkeypatch.delenv("UMLBUILD_CACHE_SIZE", raising=False)
    assert cli.run(["gc"]) == 2
    assert "--max-size 20G" in capsys.readouterr().err
    fill(store, "a")
    assert cli.run(["gc", "--keep", "30", "--dry-run"]) == 0
    assert "would be removed" in capsys.readouterr().out
    assert store.has("one", key("a"))
    assert cli.run(["gc", "--keep", "30"]) == 0
    assert not store.has("one", key("a"))


def test_limit_after_a_build_that_made_something(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, "a")
    monkeypatch.setattr(limit._State, "grew", False)
    monkeypatch.setenv("UMLBUILD_CACHE_SIZE", "1K")
    assert limit.keep_to(store) == ""
    limit.made_something()
    assert "freed" in limit.keep_to(store)
    assert not store.has("one", key("a"))
    limit.made_something()
    monkeypatch.setenv("UMLBUILD_CACHE_SIZE", "much")
    assert "is no size" in limit.keep_to(store)


class BelowSpec(Spec):
    STAGE: ClassVar[str] = "below"


class AboveSpec(Spec):
    STAGE: ClassVar[str] = "above"


@pytest.fixture
def goal(monkeypatch: pytest.MonkeyPatch) -> Step:
    def run(spec: Spec, inputs: dict[str, Path], out: Path, context: object) -> None:
        assert inputs, "the shared entry was made again"
        sparse.link_or_copy(inputs["below"] / "file", out / "file")

    for name in ("below", "above"):
        stage = types.ModuleType(f"umlbuild.stages.{name}")
        stage.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, stage.__name__, stage)
    return Step(AboveSpec(), "above", {"below": Step(BelowSpec(), "below")})


def as_nobody(do: Callable[[], str]) -> str:
    """What `do` returns in a child process, of another user if we are root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            said = do()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


def test_another_user_builds_with_a_cache_that_only_its_owner_can_write(
    open_place: Path, goal: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, own = open_place / "theirs", open_place / "own"
    below = goal.inputs["below"]
    owner = Store(theirs)
    with owner.locked("below", below.key), owner.filling("below", below.key) as out:
        (out / "file").write_bytes(os.urandom(MIB))
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    if os.getuid() != 0:
        theirs.chmod(0o555)
    monkeypatch.setenv("UMLBUILD_CACHE_SHARED", f"/nowhere:{theirs}")

    def build() -> str:
        how = make(goal, Site(own), lambda _text: None)
        site = Site(own)
        assert site.entry(below) == theirs / "below" / below.key
        return f"{how} {(own / 'above' / goal.key / 'file').stat().st_size}"

    assert as_nobody(build) == f"done {MIB}"
    theirs.chmod(0o755)
    assert not (own / "below").exists()

    # Held while it is used, although its user cannot write there.
    def use() -> str:
        Store.at(own).used("below", below.key)
        return f"{len(shared._held)} held"

    assert as_nobody(use) == "1 held"
    Store.at(own).used("below", below.key)
    assert names(collect.collect(owner, limit=0)) == ""
    for fd in shared._held:
        os.close(fd)
    shared._held.clear()
    assert len(collect.collect(owner, limit=0).removed) == 1


@pytest.mark.parametrize("what", ["cache", "stage", "entry", "file", "link"])
def test_a_shared_entry_that_others_can_write_is_not_used(
    open_place: Path, what: str, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = open_place / "theirs"
    entry = fill(Store(theirs), "a")
    monkeypatch.setenv("UMLBUILD_CACHE_SHARED", str(theirs))
    shared._caches.cache_clear()
    assert Store.at(open_place / "own").find("one", key("a")) == entry
    if what == "link":
        entry.rename(theirs / "elsewhere")
        entry.symlink_to(theirs / "elsewhere")
    else:
        {"cache": theirs, "stage": entry.parent, "entry": entry, "file": entry / "file"}[what].chmod(0o777)
    shared._caches.cache_clear()
    assert Store.at(open_place / "own").find("one", key("a")) is None
    assert ("is not used: others than its owner can write" in capfd.readouterr().err) is (what == "cache")
    shared._caches.cache_clear()


def test_a_new_file_with_the_inode_of_a_removed_one_has_its_own_digest(store: Store) -> None:
    """Sizes and clamped times are equal; the file system gives the number again."""
    for text in ("one", "two", "six"):
        with store.filling("one", key("a")) as out:
            (out / "file").write_text(text)
            os.utime(out / "file", (NOW, NOW))
        assert store.verify("one", key("a")) == [], text
        store.discard("one", key("a"))


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")
    with pytest.raises(UserError, match="UMLBUILD_CACHE_SHARED"), store.filling("one", key("a")):
        pass
    inuse.register(store, [key("a")])  # no error: the build says it better


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGHUP])
def test_a_verb_that_is_ended_removes_what_it_began(signal_: signal.Signals) -> None:
    """As `verify` and `vendor` do on ^C."""
    program = """if True:
        import time
        from umlbuild import cli
        from umlbuild.host import process
        def run(argv):
            try:
                print("begun", flush=True)
                time.sleep(60)
            finally:
                print("removed", process.is_cancelled(), flush=True)
        cli.run = run
        cli.main(["verify"])
        """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as verb:
        assert verb.stdout is not None and verb.stdout.readline() == "begun\n"
        verb.send_signal(signal_)
        assert verb.communicate(timeout=30)[0] == "removed True\n"
    assert verb.returncode == 128 + signal_
