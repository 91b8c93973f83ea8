"""Tensors by a pattern of the shell's kind, and what to say where none has such a name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

__all__ = ["matching", "none_like"]

_SHOWN = 3
_NEAR = 0.6

T = TypeVar("T")


def matching(tensors: Mapping[str, T], pattern: str) -> dict[str, T]:
    """Return the tensors whose names match a pattern."""
    return {name: tensor for name, tensor in tensors.items() if fnmatchcase(name, pattern)}


def none_like(pattern: str, names: Collection[str], noun: str = "tensor") -> str:
    """Return what to say of a pattern that matches nothing, with a near one, or with what there is.

    Args:
        pattern: as it was typed.
        names: that there are.
        noun: what they are the names of.
    """
    said = f"no {noun} is called like {pattern!r}"
    near = _corrected(pattern, names)
    if near is not None:
        return f"{said}; did you mean {near!r}?"
    if not names:
        return f"{said}; there is none at all"
    those = ", ".join(map(repr, list(names)[:_SHOWN]))
    more = len(names) - _SHOWN
    return f"{said}; there are {those}{f' and {more:,} more' if more > 0 else ''}"


def _corrected(pattern: str, names: Collection[str]) -> str | None:
    """Return the pattern with words of the names for those that no name has, if it matches then."""
    words = {word for name in names for word in name.split(".")}

    def nearest(word: str) -> str:
        if any(word in one for one in words):
            return word
        return next(iter(difflib.get_close_matches(word, sorted(words), 1, _NEAR)), word)

    parts = re.split(r"([.*?\[\]!]+)", pattern)
    near = "".join(nearest(part) if number % 2 == 0 else part for number, part in enumerate(parts))
    return near if any(fnmatchcase(name, near) for name in names) else None
