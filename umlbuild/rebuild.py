"""Builds a bundle again from what it holds: its recipe, its lock and the files that the recipe names.

In a store of its own, so that nothing that was built before is taken for the answer; only packages as they were
fetched (each checked against its pin) are shared with the cache.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umlbuild import __version__, lock, project, verify
from umlbuild.errors import RecipeError, StepFailed, ToolFailed, UserError
from umlbuild.host import needs, process
from umlbuild.host.files import Files
from umlbuild.host.store import Store
from umlbuild.plan.bundle import Plan, effective
from umlbuild.plan.wishes import wishes_of
from umlbuild.recipe import Recipe, load
from umlbuild.specs.bundle import BundleSpec

RECIPE = "recipe.toml"
HIDDEN = "(not shown)"
_SHARED = ("packages", "downloads", "locks")
_WHY = {
    "secret": "is a secret, which no bundle holds",
    "tree": "is a directory, of which the bundle holds the digest only",
    "large": "is a large file, of which the bundle holds the digest only",
}
Note = Callable[[str], None]


class KeptFiles(Files):
    """The files of a bundle by the names that its recipe has for them; others are looked for beside `base`."""

    def __init__(self, base: Path, file: str, kept: Mapping[str, Path]) -> None:
        super().__init__(base, file)
        self._kept = kept

    def path_of(self, name: str) -> Path:
        """Where the file is that the recipe calls so."""
        return self._kept.get(name, self.base / name)


def plan_of(bundle: Path, original: Path | None, cache: Path) -> Plan:
    """The plan of a bundle; `original` is the recipe's file, for what the bundle does not hold.

    Raises: UserError that names everything that is missing, or the file that is another one now.
    """
    manifest = verify.manifest_of(bundle)
    recipe = _recipe(bundle, manifest, original)
    locked = lock.parse((bundle / "recipe.lock.toml").read_text(encoding="utf-8"), bundle / "recipe.lock.toml", RECIPE)
    if locked.asked != wishes_of(recipe):
        raise UserError(
            f"{bundle}: this umlbuild ({__version__}) asks for other packages than the one that built it"
            f" ({manifest.get('umlbuild')})", "verify it with that one",
        )  # fmt: skip
    rows = manifest.get("source", [])
    kept = {row["name"]: bundle / "sources" / row["sha256"] for row in rows if row["kind"] == "kept"}
    files = KeptFiles(original.parent.absolute() if original else bundle.absolute(), RECIPE, kept)
    plan = project.plan_with(recipe, bundle / RECIPE, locked, files, cache)
    found = {source.name: source.sha256 for source in files.sources}
    changed = [
        f"{row['at']}: {row['name']}: is not the one that the bundle was built from"
        for row in rows if found.get(row["name"]) != row["sha256"]
    ]  # fmt: skip
    if changed:
        raise RecipeError(changed)
    return plan


def _recipe(bundle: Path, manifest: Mapping[str, Any], original: Path | None) -> Recipe:
    text = (bundle / RECIPE).read_text(encoding="utf-8")
    if original is not None:
        recipe = project.read_recipe(original)
        if effective(recipe) != text:
            raise UserError(f"{original}: is not the recipe of {bundle}: its effective recipe is another one")
        return recipe
    data = tomllib.loads(text)
    lacks = [
        f"rootfs.users[{number}].password_hash: {_WHY['secret']}"
        for number, user in enumerate(data.get("rootfs", {}).get("users", []))
        if user.get("password_hash") == HIDDEN
    ]
    rows = [row for row in manifest.get("source", []) if row["kind"] != "kept"]
    lacks += [f"{row['at']}: {row['name']}: {_WHY[row['kind']]}" for row in rows]
    if lacks:
        raise UserError(
            "\n".join(f"{bundle}: cannot be built again from itself: {lack}" for lack in lacks),
            "give the recipe that it was built from, with its files beside it: --recipe FILE",
        )
    return load.load(text, RECIPE, lambda name: (bundle / name).read_text(encoding="utf-8"))


@contextmanager
def rebuilt(plan: Plan, cache: Path, note: Note) -> Iterator[Path]:
    """The bundle of a plan, built from nothing but packages; there for as long as this lasts.

    Raises: what the stages raise.
    """
    from umlbuild.tasks.make import Site, make

    steps = list(plan.bundle.walk())
    needs.require_for([step.spec for step in steps], cache, note)
    with Store(cache).working("verify") as scratch:
        site = Site(scratch / "cache", plan.mirrors, plan.recipe.build)
        site.cache.mkdir(mode=0o755)
        for name in _SHARED:
            (cache / name).mkdir(exist_ok=True)
            (site.cache / name).symlink_to((cache / name).absolute())
        for step in steps:
            if not site.has(step):
                note(f"building again: {step.label}")
                make(step, site, lambda _text: None)
        yield site.entry(plan.bundle)


def compare(bundle: Path, original: Path | None, cache: Path, note: Note) -> None:
    """Build a bundle again and compare. Raises: UserError (it cannot be), StepFailed (names what differs)."""
    plan = plan_of(bundle, original, cache)
    spec = plan.bundle.spec
    assert isinstance(spec, BundleSpec)
    if any(script.network for script in plan.recipe.rootfs.run):
        note("rootfs.run: a script uses the network; its result may be another one now")
    with rebuilt(plan, cache, note) as again:
        (again / ".manifest.json").unlink()
        difference = verify.first_difference(bundle, again)
        if not difference:
            return
        lines = [f"built again, it is another one: {difference}"]
        manifest = verify.manifest_of(bundle)
        before = (f"umlbuild {manifest.get('umlbuild')}", *manifest.get("built_with", ()))
        now = (f"umlbuild {__version__}", *spec.built_with)
        lines += [f"  then: {tool}" for tool in before if tool not in now]
        lines += [f"  now:  {tool}" for tool in now if tool not in before]
        name = difference.partition(": ")[0]
        lines += _diffoscope(bundle / name, again / name, Path(again.parent))
        raise StepFailed("\n".join(lines))


def _diffoscope(one: Path, other: Path, work: Path) -> list[str]:
    """What diffoscope says, at most 60 lines; or that it would, were it installed."""
    if not (one.is_file() and other.is_file()):
        return []
    if process.find("diffoscope") is None:
        return ["  (diffoscope would show more: apt-get install diffoscope)"]
    out = work / "diffoscope"
    argv = ["diffoscope", "--no-progress", "--max-report-size", "20000", "--text", str(out), str(one), str(other)]
    try:
        process.run(argv, log=None, timeout_s=300, ok=(0, 1), env={"HOME": str(work)})
    except ToolFailed as error:
        return [f"  (diffoscope: {error.cause})"]
    if not out.exists():
        return []
    text = out.read_text(errors="replace").splitlines()
    return [f"  | {line}" for line in text[:60]]
