"""What a pickle holds beside weights, as a training state: JSON fields, and states for the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ckptstore.errors import UnsafeError
from ckptstore.manifest import plain_name
from ckptstore.ptfile.stubs import Token

__all__ = ["MOST_FIELDS", "MOST_LETTERS", "NOT_JSON", "as_json", "parted"]

# Values stay fields while a bundle's training_state.json has room for them.
MOST_FIELDS = 600
# A pickle may hold one long text a million times; written out as JSON it would have no end.
MOST_LETTERS = 16 * 2**20
_MOST_DEPTH = 100
_STATE = "_state_dict"


class _NotJson:
    def __repr__(self) -> str:
        return "NOT_JSON"


NOT_JSON: Final = _NotJson()
"""What `as_json` returns where JSON has no such thing."""


def as_json(value: Any) -> Any:
    """Return a value out of a pickle as JSON has it: tuples as lists, keys as text.

    Args:
        value: plain data; a dtype or device becomes its name.

    Returns:
        The value, or `NOT_JSON` for what JSON has no word for (tensors, sets, NaN), for more than
        16 Mi letters, and for what is nested deeper than 100.
    """
    return _plain(value, [0], _MOST_DEPTH)


def parted(
    values: Mapping[Any, Any], known: Iterable[str], fields: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Part what a format does not know into fields of a training state and further states.

    What is JSON and has room becomes a field under its own name; the rest is a state: what holds
    tensors, what is too large, and what is called ``<name>_state_dict``.

    Args:
        values: by key; what stands under a key that is no text, and what is None, is left out.
        known: keys that the format knows, which are left out too.
        fields: those that there are already.

    Returns:
        All fields; and by the name of each state, which is one that a file can have, its key.
    """
    found, keys, taken = dict(fields), [], set(known)
    for key, value in values.items():
        if key in taken or not isinstance(key, str) or value is None:
            continue
        plain = NOT_JSON if key.endswith(_STATE) else as_json(value)
        if plain is not NOT_JSON and len(json.dumps({**found, key: plain})) < MOST_FIELDS:
            found[key] = plain
        else:
            keys.append(key)
    states: dict[str, str] = {}
    for key in keys:
        name = _state_name(key, keys)
        while name in states:
            name += "_"
        states[name] = key
    return found, states


def _state_name(key: str, states: Sequence[str]) -> str:
    """Return what a further key is called as a state; a name that a file can have."""
    name = key.removesuffix(_STATE)
    if not name or (name != key and name in states) or name in ("model", "optimizer"):
        name = key
    try:
        return plain_name(name, "a key")
    except UnsafeError:
        return re.sub(r"[^\w.-]", "_", name).strip(".") or "state"


def _plain(value: Any, written: list[int], depth: int) -> Any:
    """Return a value as JSON has it, or `NOT_JSON`.

    Args:
        value: out of a pickle.
        written: the letters of all that it is part of, so far.
        depth: how much deeper it may be nested.
    """
    written[0] += len(value) if isinstance(value, (str, list, tuple, dict)) else 1
    if written[0] > MOST_LETTERS or not depth:
        return NOT_JSON
    if isinstance(value, Token):
        return str(value)
    if isinstance(value, dict):
        written[0] += sum(len(key) for key in value if isinstance(key, str))
        items = {str(key): _plain(inner, written, depth - 1) for key, inner in value.items()}
        return NOT_JSON if any(inner is NOT_JSON for inner in items.values()) else items
    if isinstance(value, (list, tuple)):
        values = [_plain(inner, written, depth - 1) for inner in value]
        return NOT_JSON if any(inner is NOT_JSON for inner in values) else values
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return NOT_JSON
    return value if value is None or isinstance(value, (bool, int, float, str)) else NOT_JSON
