"""Hyper-parameters as config.json: the fields that JSON holds exactly, to be read and edited.

A tuple is a list there, and a mark makes it a tuple again. A field with anything that JSON does
not have (a tensor, NaN, keys that are numbers) stays with the rest of the checkpoint.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ckptstore import UnsupportedError
from ckptstore.texts import dump_json, parse_json
from ckptstore_lightning.kept import Mark, restored

__all__ = ["HPARAMS", "as_edited", "config_of", "with_config"]

HPARAMS = "hyper_parameters"
_MOST_DEPTH = 50


class _NotJsonError(Exception):
    """A value that JSON does not have."""


def config_of(tree: Any) -> tuple[dict[str, Any] | None, list[Mark]]:
    """Return the hyper-parameters that JSON holds exactly, and empty their places in the tree."""
    fields = tree.get(HPARAMS) if isinstance(tree, dict) else None
    if type(fields) is not dict or not all(isinstance(name, str) for name in fields):
        return None, []
    config: dict[str, Any] = {}
    marks: list[Mark] = []
    for name, value in fields.items():
        own: list[Mark] = []
        try:
            config[name] = _as_json(value, (HPARAMS, name), own)
        except _NotJsonError:
            continue
        marks += own
    try:
        exact = parse_json(dump_json(config), "config.json") == config
    except UnsupportedError:
        exact = False
    if not config or not exact:
        return None, []
    fields.update(dict.fromkeys(config))
    return config, marks


def _as_json(value: Any, path: tuple[Any, ...], marks: list[Mark]) -> Any:
    kind = type(value)
    if len(path) > _MOST_DEPTH:
        raise _NotJsonError
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind in (list, tuple):
        items = [_as_json(item, (*path, at), marks) for at, item in enumerate(value)]
        if kind is tuple:
            marks.append((path, "tuple", None))
        return items
    if kind in (dict, OrderedDict) and all(isinstance(key, str) for key in value):
        fields = {key: _as_json(item, (*path, key), marks) for key, item in value.items()}
        if kind is OrderedDict:
            marks.append((path, "OrderedDict", None))
        return fields
    raise _NotJsonError


def with_config(
    fields: dict[str, Any], names: list[str], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return hyper-parameters in their order, as config.json has them; it may have been edited."""
    gone = {name for name in names if name not in config}
    kept = {name: value for name, value in fields.items() if name not in gone}
    return {**kept, **config}


def as_edited(tree: Any, marks: list[Mark]) -> tuple[Any, list[Mark]]:
    """Restore the hyper-parameters of an edited config.json, and return the marks that are left.

    What a person made of a field is what it is: a mark that no longer fits it is passed over.
    """
    left = []
    for mark in marks:
        if mark[0][:1] != (HPARAMS,):
            left.append(mark)
            continue
        try:
            tree = restored(tree, [mark])
        except (LookupError, TypeError, ValueError, ArithmeticError):
            continue
    return tree, left
