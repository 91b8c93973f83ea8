"""What a `.pt` is made of, its tensors' bytes aside: ties, views, and an optimizer's groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ckptstore.ptfile.stubs import ITEMSIZES, PACKED, TensorStub
from ckptstore.structure import Group, Structure, Value

__all__ = ["structure"]

_MOST_GROUPS = 64
_MOST_VALUES = 32
_MOST_LETTERS = 100
_MOST_PARTS = 8


def structure(stubs: Mapping[str, TensorStub], named: Iterable[str], optimizer: Any) -> Structure:
    """Return what a pickle says of its object.

    Args:
        stubs: every tensor in it, by name.
        named: what the pickle refers to.
        optimizer: what may be an optimizer's state dict, in it or all of it.
    """
    ties: dict[str, list[str]] = {}
    for name, stub in stubs.items():
        if stub.record is not None:
            ties.setdefault(stub.record, []).append(name)
    unseen: dict[str, int] = {}
    for names in ties.values():
        hidden = _hidden([stubs[name] for name in names])
        if hidden:
            unseen[names[0]] = hidden
    return Structure(
        refers_to=tuple(sorted(named)),
        ties=tuple(tuple(names) for names in ties.values() if len(names) > 1),
        unseen=unseen,
        groups=_groups(optimizer),
        slots=_slots(optimizer),
    )


def _hidden(stubs: list[TensorStub]) -> int:
    """Return how many bytes of their storage some tensors do not reach."""
    seen = end = 0
    for start, stop in sorted(map(_span, stubs)):
        seen += max(0, stop - max(start, end))
        end = max(end, stop)
    whole = max(stub.storage.nbytes for stub in stubs if stub.storage is not None)
    return max(0, whole - seen)


def _span(stub: TensorStub) -> tuple[int, int]:
    size, packed = ITEMSIZES[stub.dtype], PACKED.get(stub.dtype, 1)
    start = stub.offset * size // packed
    if not math.prod(stub.shape):
        return start, start
    reach = sum((n - 1) * step for n, step in zip(stub.shape, stub.stride, strict=False))
    return start, start + -(-(reach + 1) * size // packed)


def _groups(optimizer: Any) -> tuple[Group, ...] | None:
    """Return the param groups of an optimizer's state dict; None for any other object."""
    groups = optimizer.get("param_groups") if isinstance(optimizer, Mapping) else None
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        return None
    return tuple(map(_group, groups[:_MOST_GROUPS]))


def _slots(optimizer: Any) -> dict[str, int]:
    state = optimizer.get("state") if _groups(optimizer) is not None else None
    kept = state.values() if isinstance(state, Mapping) else ()
    names = Counter(
        name
        for slots in kept
        if isinstance(slots, Mapping)
        for name in slots
        if isinstance(name, str) and len(name) <= _MOST_LETTERS
    )
    return dict(names.most_common(_MOST_VALUES))


def _group(group: Mapping[Any, Any]) -> Group:
    params = group.get("params")
    count = len(params) if isinstance(params, (list, tuple)) else 0
    return Group(count, dict(list(_values(group))[:_MOST_VALUES]))


def _values(group: Mapping[Any, Any]) -> Iterator[tuple[str, Value]]:
    for name, value in group.items():
        if isinstance(name, str) and len(name) <= _MOST_LETTERS and name != "params":
            if type(value) in (list, tuple):
                if len(value) <= _MOST_PARTS and all(map(_is_plain, value)):
                    yield name, tuple(map(_finite, value))
            elif _is_plain(value):
                yield name, _finite(value)


def _is_plain(value: Any) -> bool:
    if type(value) is str:
        return len(value) <= _MOST_LETTERS
    if type(value) is int:
        return value.bit_length() < 64
    return type(value) in (bool, float, type(None))


def _finite(value: Any) -> Any:
    """Return a value as JSON has it: without NaN and infinity."""
    return str(value) if type(value) is float and not math.isfinite(value) else value
