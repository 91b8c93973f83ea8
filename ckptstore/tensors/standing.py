"""What a `Later` is pickled as: the tensor that it will be, though its bytes were not read yet.

The pickle is the one that the loaded tensor would give. How a dtype is written is asked of a tensor
without elements, so that nothing of torch's own form is written down here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ckptstore.later import Later
from ckptstore.tensors.compact import View, are_alike, begins, parted

__all__ = ["Bytes", "Standing", "StandingStorage", "row_strides", "standing"]


@dataclass(frozen=True, eq=False)
class Bytes:
    """The bytes of a storage that are read when they are written.

    Attributes:
        nbytes: how many.
        pieces: gives them in order.
    """

    nbytes: int
    pieces: Callable[[], Iterator[memoryview]]


@dataclass(frozen=True)
class StandingStorage:
    """What stands in a pickle for a storage.

    Attributes:
        held: its bytes.
        like: an empty storage of its kind, torch's own.
    """

    held: Bytes
    like: torch.storage.TypedStorage | torch.UntypedStorage


@dataclass(frozen=True, eq=False)
class Standing:
    """What stands in a pickle for a tensor.

    Attributes:
        later: which.
        held: the storage that it looks into.
        start: where, in bytes.
    """

    later: Later
    held: Bytes
    start: int

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        later = self.later
        like = torch.empty(0, dtype=getattr(torch, later.dtype))
        if later.parameter:
            parameter = torch.nn.Parameter(like, requires_grad=later.requires_grad)
            made, arguments = parameter.__reduce_ex__(protocol)[:2]  # type: ignore[no-untyped-call]
            return made, (_Data(later, self.held, self.start), *arguments[1:])
        return _reduced(self, like.requires_grad_(later.requires_grad), protocol)


class _Data(Standing):
    """The tensor in a parameter."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _reduced(self, torch.empty(0, dtype=getattr(torch, self.later.dtype)), protocol)


def _reduced(one: Standing, like: torch.Tensor, protocol: Any) -> tuple[Any, ...]:
    made, (storage, _, _, _, *rest) = like.__reduce_ex__(protocol)[:2]  # type: ignore[no-untyped-call]
    later = one.later
    # Neither tuple may be one that stands elsewhere: pickle writes the same object once.
    shape = (*later.shape,)
    stride = row_strides(shape) if later.stride is None else (*later.stride,)
    offset = one.start // like.element_size()
    return made, (StandingStorage(one.held, storage), offset, shape, stride, *rest)


def row_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor that lies row by row, as torch counts them."""
    found, step = [], 1
    for size in reversed(shape):
        found.append(step)
        step *= max(size, 1)
    return tuple(reversed(found))


def standing(laters: Iterable[Later]) -> dict[int, Standing]:
    """Return what stands for tensors in a pickle, by ``id`` of each.

    Storages are parted as `ckptstore.tensors.compact` parts those that are in memory.

    Args:
        laters: all of an object's, each once.
    """
    wholes: dict[int, tuple[Later, list[View[Later]]]] = {}
    for later in laters:
        whole = later if later.whole is None else later.whole
        wholes.setdefault(id(whole), (whole, []))[1].append(_view_of(later))
    found: dict[int, Standing] = {}
    for whole, views in wholes.values():
        groups = parted(views, whole.nbytes)
        if not groups:
            held = Bytes(whole.nbytes, whole.pieces)
            found |= {id(v.tensor): Standing(v.tensor, held, v.start) for v in views}
        for group in groups:
            found |= _own_storage(whole, group)
    return found


def _view_of(later: Later) -> View[Later]:
    geometry = (later.dtype, later.start, later.shape, later.stride)
    return View(later, later.start, later.start + later.nbytes, later.nbytes, geometry)


def _own_storage(whole: Later, group: list[View[Later]]) -> dict[int, Standing]:
    """Return what stands for views that share a part of a storage."""
    first = group[0]
    start, end = (first.start, first.end) if are_alike(group) else _span(group)
    if are_alike(group) and first.tensor.stride is None:
        held = Bytes(first.nbytes, first.tensor.pieces)
    else:
        held = Bytes(end - start, partial(_section, whole, start, end))
    return {id(view.tensor): Standing(view.tensor, held, view.start - start) for view in group}


def _span(group: list[View[Later]]) -> tuple[int, int]:
    return begins(group), max(view.end for view in group)


def _section(whole: Later, start: int, end: int) -> Iterator[memoryview]:
    """Yield a part of a tensor's bytes; all of them are read, since they are proved together."""
    at = 0
    for piece in whole.pieces():
        inside = piece[max(0, start - at) : max(0, end - at)]
        if inside:
            yield inside
        at += len(piece)
