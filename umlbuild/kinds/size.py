"""Sizes as recipes write them: "512M", "2G", "auto", "auto+256M". Pure; suffixes are powers of 1024."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

BLOCK = 4096
"""Every size of a disk is a multiple of it: a page, and the block of all our file systems."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)")
_LARGEST = 16 << 40


def bytes_of(text: str) -> int:
    """The bytes that a size stands for. Raises: ValueError, worded for the user."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write a whole number with K, M, G or T (like 512M or 2G)")
    size = int(match[1]) * _UNITS[match[2]]
    if size == 0:
        raise ValueError(f"{text!r} is no size at all")
    if size % BLOCK:
        raise ValueError(f"{text!r} is not a multiple of {BLOCK} bytes (4K)")
    if size > _LARGEST:
        raise ValueError(f"{text!r} is more than {text_of(_LARGEST)}")
    return size


def spare_of(text: str) -> int | None:
    """For "auto" and "auto+N" the bytes that are added to the content's need; None for a plain size.

    Raises: ValueError, worded for the user.
    """
    if text == "auto":
        return 0
    head, plus, tail = text.partition("+")
    if head != "auto":
        return None
    if not plus or not tail:
        raise ValueError(f"{text!r} is not a size; write auto or auto+256M")
    return bytes_of(tail)


def text_of(size: int) -> str:
    """The shortest spelling with no loss, e.g. 2147483648 → "2G"; `bytes_of` reads it back."""
    for unit in ("T", "G", "M", "K"):
        if size >= _UNITS[unit] and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def about(size: int) -> str:
    """A size for people, rounded up: "231M", "2.4G"."""
    if size >= 10 << 30:
        return f"{-(-size // (1 << 30))}G"
    if size >= 1 << 30:
        return f"{-(-size * 10 // (1 << 30)) / 10:g}G"
    if size >= 1 << 20:
        return f"{-(-size // (1 << 20))}M"
    return f"{-(-size // (1 << 10))}K"


def _checked(text: str) -> str:
    bytes_of(text)
    return text


def _checked_or_auto(text: str) -> str:
    if spare_of(text) is None:
        bytes_of(text)
    return text


Size = Annotated[str, AfterValidator(_checked)]
"""A fixed size: "512M"."""

AutoSize = Annotated[str, AfterValidator(_checked_or_auto)]
"""A fixed size, or "auto" (what the content needs), or "auto+256M" (that and so much free space)."""
