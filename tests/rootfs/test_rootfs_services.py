"""Services are enabled and disabled as systemctl and insserv do it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import untar

from umlbuild.errors import StepFailed
from umlbuild.host import initscripts, units
from umlbuild.host.tree import Tree

UNITS = {
    "plain.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    "many.service": "[Install]\nWantedBy=a.target b.target\nRequiredBy=c.target\nAlias=other.service\n"
    "Also=plain.service\n",
    "sock.socket": "[Socket]\nListenStream=/run/s\n[Install]\nWantedBy=sockets.target\n",
    "sock.service": "[Service]\nExecStart=/bin/true\n[Install]\nAlso=sock.socket\nWantedBy=multi-user.target\n",
    "inst@.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=dev-%i.target\nDefaultInstance=one\n",
    "tmpl@.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    "reset.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=a.target\nWantedBy=\nWantedBy=b.target\n",
    "static.service": "[Service]\nExecStart=/bin/true\n",
    "tick.timer": "[Timer]\nOnBootSec=1\n[Install]\nWantedBy=timers.target\n",
}


def root() -> Tree:
    tree = Tree()
    tree.put_dir("/usr/lib")
    tree.put_symlink("/lib", "usr/lib")
    tree.put_dir("/etc/systemd/system")
    for name, text in UNITS.items():
        tree.put_file(f"/usr/lib/systemd/system/{name}", f"[Unit]\nDescription=x\n{text}".encode())
    return tree


def links(tree: Tree) -> dict[str, str]:
    return {m.path: os.path.basename(m.target) for m in tree if m.kind == "symlink" and m.path.startswith("etc/")}


@pytest.mark.parametrize(
    ("verbs", "expected"),
    [
        (["+plain"], {"multi-user.target.wants/plain.service": "plain.service"}),
        (["+tick.timer"], {"timers.target.wants/tick.timer": "tick.timer"}),
        (["+inst@two"], {"dev-two.target.wants/inst@two.service": "inst@.service"}),
        (["+inst@"], {"dev-one.target.wants/inst@one.service": "inst@.service"}),
        (["+reset"], {"b.target.wants/reset.service": "reset.service"}),
        (["+many", "-many"], {}),
        (["+sock", "-sock"], {}),
        (["+plain", "+plain", "-plain", "-plain"], {}),
    ],
)
def test_units(verbs: list[str], expected: dict[str, str]) -> None:
    tree = root()
    for verb in verbs:
        (units.enable if verb[0] == "+" else units.disable)(tree, verb[1:])
    assert links(tree) == {f"etc/systemd/system/{path}": target for path, target in expected.items()}


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="systemctl is not installed")
@pytest.mark.parametrize("names", [["plain"], ["many"], ["sock"], ["inst@two"], ["inst@"], ["reset"], ["many", "sock"]])
def test_units_are_enabled_as_systemctl_does_it(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "r").mkdir()
    root().write(tmp_path / "r.tar")
    with tarfile.open(tmp_path / "r.tar") as tar:
        untar.unpack(tar, tmp_path / "r")
    tree = root()
    full = [units._full(name) for name in names]
    for verb, ours in (("enable", units.enable), ("disable", units.disable)):
        argv = ["systemctl", f"--root={tmp_path / 'r'}", verb, *full]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        for name in names:
            ours(tree, name)
        theirs = {
            str(path.relative_to(tmp_path / "r")): os.path.basename(path.readlink())
            for path in (tmp_path / "r/etc").rglob("*") if path.is_symlink()
        }  # fmt: skip
        assert links(tree) == theirs, verb


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("plian", "no unit 'plian.service' in the root; did you mean plain.service"),
        ("static", "names nothing to start it by"),
        ("tmpl@", "it is a template"),
        ("gone.timer", "no unit 'gone.timer'"),
        ("masked", "is masked"),
    ],
)
def test_units_that_cannot_be_enabled(name: str, says: str) -> None:
    tree = root()
    tree.put_symlink("/etc/systemd/system/masked.service", "/dev/null")
    with pytest.raises(StepFailed) as caught:
        units.enable(tree, name)
    assert says in str(caught.value)
    assert caught.value.hint


def test_drop_ins_and_etc_come_first() -> None:
    tree = root()
    tree.put_file("/etc/systemd/system/static.service.d/i.conf", b"[Install]\nWantedBy=a.target\n")
    tree.put_file("/etc/systemd/system/plain.service", b"[Install]\nWantedBy=mine.target\n")
    units.enable(tree, "static")
    units.enable(tree, "plain")
    assert set(links(tree)) == {
        "etc/systemd/system/a.target.wants/static.service",
        "etc/systemd/system/mine.target.wants/plain.service",
    }


def script(provides: str, *, start: str = "2 3 4 5", after: str = "", stop: str = "0 1 6") -> bytes:
    return (
        f"#!/bin/sh\n### BEGIN INIT INFO\n# Provides:          {provides}\n# Required-Start:    {after}\n"
        f"# Required-Stop:     {after}\n# Default-Start:     {start}\n# Default-Stop:      {stop}\n### END INIT INFO\n"
    ).encode()


def sysv() -> Tree:
    tree = Tree()
    scripts = {
        "kmod": script("kmod", start="S", stop=""),
        "networking": script("networking", start="S", after="kmod", stop="0 6"),
        "rsyslog": script("rsyslog", after=""),
        "app": script("app", after="$syslog $network db"),
        "db": script("database db", after="$syslog"),
        "rc.local": script("rc.local", after="$all", stop=""),
        "notes": b"#!/bin/sh\n",
    }
    for name, text in scripts.items():
        tree.put_file(f"/etc/init.d/{name}", text, mode=0o755)
    for level in "S0123456":
        tree.put_dir(f"/etc/rc{level}.d")
    tree.put_file("/etc/insserv.conf", b"$syslog +rsyslog +sysklogd\n$network +networking\n$time $syslog\n")
    for kind in ("boot", "start", "stop"):
        tree.put_file(f"/etc/init.d/.depend.{kind}", b"TARGETS =\nINTERACTIVE =\n")
    return tree


def test_init_scripts_are_ordered_by_what_they_need() -> None:
    tree = sysv()
    for name in ("rc.local", "app", "rsyslog", "db", "kmod", "networking"):
        initscripts.enable(tree, name)
    assert tree.names("/etc/rc2.d") == ["S01rsyslog", "S02db", "S03app", "S04rc.local"]
    assert tree.names("/etc/rcS.d") == ["S01kmod", "S02networking"]
    assert tree.names("/etc/rc0.d") == ["K01app", "K02db", "K02networking", "K03rsyslog"]
    assert tree.text("/etc/init.d/.depend.start").splitlines() == [
        "TARGETS = rsyslog db app rc.local",
        "INTERACTIVE =",
        "db: rsyslog",
        "app: db rsyslog",
        "rc.local: app db rsyslog",
    ]
    link = tree.get("/etc/rc2.d/S02db", follow=False)
    assert link is not None
    assert link.target == "../init.d/db"


def test_a_disabled_script_has_stop_links_only() -> None:
    tree = sysv()
    initscripts.enable(tree, "db")
    initscripts.disable(tree, "db")
    assert tree.names("/etc/rc2.d") == ["K01db"]
    assert "db" not in tree.text("/etc/init.d/.depend.start")
    initscripts.enable(tree, "db")
    assert tree.names("/etc/rc2.d") == ["S01db"]


def test_scripts_that_are_not_there() -> None:
    with pytest.raises(StepFailed, match=r"no service 'networkin' .* did you mean networking"):
        initscripts.enable(sysv(), "networkin")
    with pytest.raises(StepFailed, match="notes"):
        initscripts.disable(sysv(), "notes")


def test_scripts_that_need_each_other_get_numbers_all_the_same() -> None:
    assert initscripts.numbers({"a": {"b"}, "b": {"a"}, "c": {"b"}}) == {"a": 2, "b": 1, "c": 2}


def test_under_systemd_a_lone_script_gets_its_runlevel_links() -> None:
    tree = sysv()
    units.enable(tree, "db.service")
    assert tree.names("/etc/rc2.d") == ["S01db"]
    units.disable(tree, "db")
    assert tree.names("/etc/rc2.d") == ["K01db"]
