"""Which recipe a word means: none, one, several, and one that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlbuild import cli
from umlbuild.errors import UserError
from umlbuild.finding import find_recipe, find_recipes


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recipes").mkdir()
    for name in ("hello.toml", "recipes/router.toml"):
        (tmp_path / name).write_text(f'format = 1\nname = "{Path(name).stem}"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UMLBUILD_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("words", ["router", "router.toml", "recipes/router.toml", " router , "])
def test_a_recipe_by_its_name_or_path(place: Path, words: str) -> None:
    assert find_recipes(words, place) == [place / "recipes/router.toml"] == [find_recipe(words, place)]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("nope.toml", "there are: hello.toml, router.toml"),
        ("nope", "there are: hello.toml, router.toml"),
        ("rooter.toml", 'did you mean "router.toml"?'),
        ("helo", 'did you mean "hello.toml"?'),
        ("~nobody-of-this-name/x.toml", "there are: hello.toml, router.toml"),
        (".", "there are: hello.toml, router.toml"),
    ],
)
def test_a_recipe_that_is_not_there(place: Path, word: str, hint: str) -> None:
    with pytest.raises(UserError, match="no such recipe") as caught:
        find_recipes(word, place)
    assert caught.value.hint == hint


VERBS = (["plan"], ["why"], ["show"], ["lock"], ["filter", "show"], ["vendor"], ["gc", "--keep"])


@pytest.mark.parametrize("words", ["", " ", ","])
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_recipe_is_refused(place: Path, capsys: pytest.CaptureFixture[str], verb: list[str], words: str) -> None:
    assert cli.run([*verb, words, *(["there"] if verb == ["vendor"] else [])]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "umlbuild: no recipe is named\n  fix: there are: hello.toml, router.toml\n"


@pytest.mark.parametrize("verb", [["filter", "show"], ["vendor"]], ids=" ".join)
def test_several_are_refused_where_one_is_possible(
    place: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    assert cli.run([*verb, "hello,router.toml", *(["there"] if verb == ["vendor"] else [])]) == 2
    assert "hello,router.toml: this is done with one recipe at a time" in capsys.readouterr().err
    assert not (place / "there").exists()
