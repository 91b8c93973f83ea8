"""Which part of a saved state dict is the model, and which the optimizer.

A state dict is saved flat, with the path to each value. Its parts are what stands under its
outermost keys. Rule 1: the model is the one part that is called so; where there is none such part,
the tensors that stand under no part are the model, a bare state dict, as torchtitan saves it among
its other parts. Rule 2: what is inside a single part (``{"app": {"model": ...}}``) is looked at
where the outermost keys have no model. Rule 3: whatever has two answers is an error that names
both, for the model; of several optimizers each is a state of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptstore import CorruptionError, UnsupportedError
from ckptstore_dcp.metadata import Entry, Path

__all__ = ["Parts", "found_in"]

_MODEL = ("model", "model_state_dict", "state_dict")
_OPTIMIZER = ("optimizer", "optimizer_state_dict", "optim", "optim_state_dict", "optimizer_0")
_EXTRA = "_extra_state"  # What a module adds to its own state dict, which may be no tensor.
_MOST_SHOWN = 8

Group = dict[Path, Entry]
"""Entries by what is left of their paths."""


@dataclass
class Parts:
    """The parts of a saved state dict.

    Attributes:
        model: entries by the names of the model's state dict.
        optimizer: entries of the optimizer; empty where there is none.
        groups: those of every other part, by its key.
        values: entries that stand under a key by themselves.
    """

    model: dict[str, Entry] = field(default_factory=dict)
    optimizer: Group = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    values: dict[str, Entry] = field(default_factory=dict)


def found_in(entries: Iterable[Entry], where: str) -> Parts:
    """Return the parts of a saved state dict.

    Raises:
        CorruptionError: two values have one name.
        UnsupportedError: no part is the model, or several could be.
    """
    every: Group = {}
    for entry in entries:
        if every.setdefault(entry.path, entry) is not entry:
            raise _contradicts(entry.path, where)
    groups, values = _grouped(every, where)
    model = _one_of(_MODEL, groups, where)
    if model is None:
        inner = {key: _grouped(group, where) for key, group in groups.items()}
        holders = [key for key, (found, _) in inner.items() if set(found) & set(_MODEL)]
        if len(holders) > 1:
            raise _several([f"{key}.model" for key in holders], where)
        if holders:
            found, more = inner[holders[0]]
            del groups[holders[0]]
            _check_free({**groups, **values}, {**found, **more}, where)
            groups, values = {**groups, **found}, {**values, **more}
            model = _one_of(_MODEL, found, where)
    parts = Parts(groups=groups, values=values)
    if model is not None:
        parts.model = _joined(groups.pop(model), where)
    else:
        bare = {key for key, one in values.items() if one.is_tensor or key.endswith(_EXTRA)}
        parts.model = {key: values.pop(key) for key in list(values) if key in bare}
    if not any(entry.is_tensor for entry in parts.model.values()):
        shown = ", ".join(map(repr, [*groups, *values][:_MOST_SHOWN])) or "nothing"
        raise UnsupportedError(
            f"{where} holds no model: none of its parts is called {_or(_MODEL)}, and no tensors "
            f"stand beside them; it holds {shown}"
        )
    optimizers = [key for key in _OPTIMIZER if key in groups]
    if len(optimizers) == 1 and all(isinstance(path[0], str) for path in groups[optimizers[0]]):
        parts.optimizer = groups.pop(optimizers[0])
    return parts


def _grouped(entries: Group, where: str) -> tuple[dict[str, Group], dict[str, Entry]]:
    """Return the entries below each first key, and those that stand under one by themselves."""
    groups: dict[str, Group] = {}
    values: dict[str, Entry] = {}
    for path, entry in entries.items():
        key = str(path[0])
        if len(path) == 1:
            values[key] = entry
        else:
            groups.setdefault(key, {})[path[1:]] = entry
    _check_free(groups, values, where)
    return groups, values


def _check_free(one: Mapping[str, Any], other: Mapping[str, Any], where: str) -> None:
    both = sorted({*one} & {*other})
    if both:
        raise UnsupportedError(
            f"{where} has {both[0]!r} twice, and nobody could tell which of them is meant"
        )


def _one_of(names: Iterable[str], groups: Mapping[str, Group], where: str) -> str | None:
    found = [name for name in names if name in groups]
    if len(found) > 1:
        raise _several(found, where)
    return found[0] if found else None


def _joined(group: Group, where: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for path, entry in group.items():
        name = ".".join(map(str, path))
        if name in found:
            raise CorruptionError(f"{where} is damaged: the model has {name!r} twice")
        found[name] = entry
    return found


def _several(names: Iterable[str], where: str) -> UnsupportedError:
    return UnsupportedError(
        f"{where} holds several models ({', '.join(map(repr, names))}), and nobody could tell "
        "which of them is meant; load it with torch.distributed.checkpoint, and save one of them"
    )


def _contradicts(path: Path, where: str) -> CorruptionError:
    return CorruptionError(
        f"{where} is damaged: what stands at {'.'.join(map(str, path))!r} is one value and several "
        "at once"
    )


def _or(names: Iterable[str]) -> str:
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}"
