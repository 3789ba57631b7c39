"""Contract of all bootstrappers: pure, described, and asking for exactly the packages they are given."""

from __future__ import annotations

import inspect

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from umlbuild.kinds.bootstraps import KINDS, Bootstrap
from umlbuild.kinds.bootstraps.base import Bootstrapper
from umlbuild.kinds.bootstraps.mmdebstrap import Mmdebstrap
from umlbuild.specs.rootfs import Method

MODELS = pytest.mark.parametrize("model", KINDS, ids=lambda model: str(model.__name__))


@MODELS
def test_every_kind_is_one_of_the_union(model: type[BaseModel]) -> None:
    kind = model.model_fields["kind"].default
    assert type(TypeAdapter(Bootstrap).validate_python({"kind": kind})) is model
    with pytest.raises(ValidationError):
        TypeAdapter(Bootstrap).validate_python({"kind": kind, "unknown": 1})


@MODELS
def test_every_kind_is_described(model: type[BaseModel]) -> None:
    text = inspect.getdoc(inspect.getmodule(model)) or ""
    assert "Source:" in text
    assert f'bootstrap = "{model.model_fields["kind"].default}"' in text


@MODELS
def test_methods_are_deterministic_and_name_the_packages(model: type[Bootstrapper]) -> None:
    method = model().method("trixie", "amd64")
    assert method == model().method("trixie", "amd64")
    for argv in (method.argv, method.fake_argv or ()):
        if argv:
            words = " ".join(argv)
            assert all(mark in words for mark in ("{repository}", "{target}", "{packages}", "trixie", "amd64"))
    assert bool(method.argv) == (method.makes != "unpacked")


@MODELS
def test_layers_are_deterministic_and_name_their_base(model: type[Bootstrapper]) -> None:
    layer = model().layer("trixie", "amd64")
    assert layer == model().layer("trixie", "amd64")
    if layer is None:
        return
    assert layer.makes in ("tar", "tree")
    assert layer != model().method("trixie", "amd64")
    for argv in (layer.argv, layer.fake_argv or layer.argv):
        words = " ".join(argv)
        assert all(mark in words for mark in ("{repository}", "{target}", "{packages}", "{base}", "trixie", "amd64"))


def test_only_mmdebstrap_makes_layers() -> None:
    """docs/architecture.md says so; the others' roots are made at once, and their steps' labels tell it."""
    assert [model.__name__ for model in KINDS if model().layer("trixie", "amd64")] == ["Mmdebstrap"]


def test_a_suite_reaches_the_command() -> None:
    one, two = (Mmdebstrap().method(suite, "amd64") for suite in ("bookworm", "sid"))
    assert isinstance(one, Method)
    assert one != two
