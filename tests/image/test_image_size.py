"""Sizes as recipes write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlbuild.kinds import size
from umlbuild.kinds.size import about, bytes_of, spare_of, text_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4096", 4096), ("4K", 4096), ("512M", 512 << 20), ("2G", 2 << 30), ("1T", 1 << 40), ("0064M", 64 << 20)],
)
def test_plain(text: str, expected: int) -> None:
    assert bytes_of(text) == expected
    assert spare_of(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a size"),
        ("2g", "is not a size; write a whole number with K, M, G or T (like 512M or 2G)"),
        ("1.5G", "is not a size"),
        ("2GB", "is not a size"),
        ("-1M", "is not a size"),
        (" 1M", "is not a size"),
        ("1M\n", "is not a size"),
        ("٤K", "is not a size"),
        ("0M", "is no size at all"),
        ("1K", "is not a multiple of 4096 bytes (4K)"),
        ("17T", "is more than 16T"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        bytes_of(text)
    assert said in str(raised.value) and repr(text) in str(raised.value)


@pytest.mark.parametrize(("text", "expected"), [("auto", 0), ("auto+256M", 256 << 20), ("auto+4K", 4096)])
def test_automatic(text: str, expected: int) -> None:
    assert spare_of(text) == expected


@pytest.mark.parametrize("text", ["auto+", "auto+x", "auto+0", "auto+auto", "auto+1K"])
def test_automatic_refused(text: str) -> None:
    with pytest.raises(ValueError):
        spare_of(text)


@given(st.integers(min_value=1, max_value=(16 << 40) // size.BLOCK))
def test_round_trip(blocks: int) -> None:
    assert bytes_of(text_of(blocks * size.BLOCK)) == blocks * size.BLOCK


@given(st.text(max_size=12))
def test_every_text_is_a_size_or_a_worded_error(text: str) -> None:
    try:
        assert bytes_of(text) % size.BLOCK == 0
    except ValueError as error:
        assert repr(text) in str(error)


@given(st.integers(min_value=1, max_value=16 << 40))
def test_about_never_says_less(count: int) -> None:
    text = about(count)
    number, unit = float(text[:-1]), {"K": 10, "M": 20, "G": 30}[text[-1]]
    assert number * (1 << unit) >= count
