"""How values are put into words: sizes, counts, times, and text from strangers made harmless."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

__all__ = [
    "ago",
    "clean",
    "number",
    "plain",
    "plural",
    "shape_text",
    "short",
    "size",
    "value_text",
    "when",
]

_AGES = (("day", 86400), ("hour", 3600), ("minute", 60))


def clean(text: object) -> str:
    """Return text that a terminal only shows: control characters as their Python escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def size(n: int) -> str:
    """Return a number of bytes for people, in powers of 1000: ``43.2 MB``."""
    if n < 1000:
        return f"{n} B"
    value, units = float(n), iter(("kB", "MB", "GB", "TB", "PB"))
    unit = ""
    while value >= 999.5 and (following := next(units, None)):
        value, unit = value / 1000, following
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"


def number(value: float | None) -> str:
    """Return a measured number in four digits; a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def shape_text(shape: Sequence[int]) -> str:
    """Return a tensor's shape: ``8192 x 1024``."""
    return " x ".join(map(str, shape)) if shape else "scalar"


def plural(n: int, noun: str) -> str:
    """Return a count and its noun: ``1 file``, ``72 tensors``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def when(created: str) -> str:
    """Return an ISO 8601 time in UTC for people: ``2026-05-04 13:37:00 UTC``."""
    day, _, time = created.partition("T")
    for suffix in ("+00:00", "Z"):
        if time.endswith(suffix):
            return clean(f"{day} {time.removesuffix(suffix).partition('.')[0]} UTC")
    return clean(created)


def ago(created: str, now: datetime | None = None) -> str:
    """Return how long ago something was, as ``3 hours ago``; nothing below a minute.

    Args:
        created: ISO 8601.
        now: when that is asked; this moment by default.
    """
    passed = (now or datetime.now(timezone.utc)) - datetime.fromisoformat(created)
    seconds = passed.total_seconds()
    for unit, length in _AGES:
        if seconds >= length:
            return f"{plural(int(seconds // length), unit)} ago"
    return ""


def short(text: str, room: int) -> str:
    """Return text that fits into some columns, cut off with an ellipsis where it has to be."""
    return text if len(text) <= room else f"{text[: max(room - 1, 1)]}…"


def value_text(value: object) -> str:
    """Return a value of a JSON object on one line: text as it is, anything else as JSON."""
    return clean(value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False))


def plain(value: object) -> Any:
    """Return a value as JSON has it; what JSON lacks, NaN included, becomes text.

    A legacy file's config is a pickled dict: it may hold more than JSON does.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)
