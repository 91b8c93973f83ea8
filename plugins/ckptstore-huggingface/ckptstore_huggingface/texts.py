"""JSON as other programs write it: Python's own words for what is no finite number, too."""

from __future__ import annotations

import json
from typing import Any

from ckptstore import CorruptionError
from ckptstore.texts import parse_json

__all__ = ["read_json"]


def read_json(text: str, where: str) -> dict[str, Any]:
    """Read a JSON object from text that may come from anybody.

    ``NaN`` and ``Infinity``, which are no JSON, become ``{"__float__": "NaN"}``: what transformers
    itself writes by now in their place.

    Raises:
        CorruptionError: it is no object of JSON, these words aside.
    """
    try:
        return parse_json(text, where)
    except CorruptionError:
        try:
            value = json.loads(text, parse_constant=lambda word: {"__float__": word})
            plain = json.dumps(value)
        except (ValueError, RecursionError):
            plain = ""
        if not plain:
            raise
        return parse_json(plain, where)
