"""Dates of services, and how far clocks are apart, in words."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any

__all__ = ["apart", "date_of"]

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def date_of(answer: Mapping[str, Any]) -> float | None:
    """Return the date of an HTTP answer as botocore gives it, in seconds since 1970, or None."""
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    with contextlib.suppress(TypeError, ValueError):
        date = parsedate_to_datetime(said)
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    return None


def apart(seconds: float) -> str:
    """Return what a clock is that shows so much more than another: ``2 hours ahead``."""
    size = abs(seconds)
    unit, length = next((row for row in _UNITS if size >= row[1]), _UNITS[-1])
    count = round(size / length)
    return f"{count} {unit}{'' if count == 1 else 's'} {'ahead' if seconds > 0 else 'behind'}"
