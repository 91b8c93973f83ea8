"""Views without the rest of their storage: what is to be saved in the place of some tensors.

`torch.save` writes whole storages, so a row of a large table would bring the table along. Each
storage is looked at by the ranges that its tensors cover. Where they cover it, it stays as it is,
and nothing is copied. Otherwise ranges that overlap become one storage of their own, so that
tensors which share memory still share it after the load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

__all__ = ["View", "are_alike", "begins", "compacted", "is_plain", "parted"]

_ALIGNMENT = 16
_T = TypeVar("_T")


@dataclass(frozen=True)
class View(Generic[_T]):
    """What a tensor covers of a storage.

    Attributes:
        tensor: which.
        start: the first byte.
        end: behind the last one.
        nbytes: bytes of its elements.
        geometry: the same for two that are one tensor.
    """

    tensor: _T
    start: int
    end: int
    nbytes: int
    geometry: tuple[object, ...]


def compacted(tensors: Iterable[torch.Tensor]) -> dict[int, torch.Tensor]:
    """Return what to save in the place of tensors that are views of more; by ``id`` of each.

    Args:
        tensors: all of an object's, each once.
    """
    storages: dict[tuple[torch.device, int], list[View[torch.Tensor]]] = {}
    for tensor in tensors:
        view = _view_of(tensor)
        if view is not None:
            key = (tensor.device, tensor.untyped_storage().data_ptr())
            storages.setdefault(key, []).append(view)
    replaced: dict[int, torch.Tensor] = {}
    for views in storages.values():
        for group in parted(views, views[0].tensor.untyped_storage().nbytes()):
            replaced |= _own_storage(group)
    return replaced


def parted(views: Sequence[View[_T]], size: int) -> list[list[View[_T]]]:
    """Return the groups that get a storage of their own; none where the storage stays as it is.

    Args:
        views: of one storage.
        size: bytes of it.
    """
    groups = _overlapping(views)
    return groups if sum(map(_needed, groups)) < size else []


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is its storage's bytes, seen by shape and stride, and nothing else."""
    return not (
        tensor.layout is not torch.strided
        or tensor.device.type == "meta"
        or tensor.is_quantized
        or tensor.is_nested
        or tensor.is_conj()
        or tensor.is_neg()
        or tensor.__dict__
    )


def _view_of(tensor: torch.Tensor) -> View[torch.Tensor] | None:
    """Return the bytes that a tensor covers, or None where it is better left as it is."""
    if not is_plain(tensor):
        return None
    size = tensor.element_size()
    start = int(tensor.storage_offset()) * size
    geometry = (tensor.dtype, start, tensor.shape, tensor.stride())
    if not tensor.numel():
        return View(tensor, start, start, 0, geometry)
    reach = sum(
        int(n - 1) * int(step) for n, step in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return View(tensor, start, start + (reach + 1) * size, tensor.numel() * size, geometry)


def _overlapping(views: Iterable[View[_T]]) -> list[list[View[_T]]]:
    """Group views of one storage by the ranges that overlap; empty ones stand alone."""
    groups: list[list[View[_T]]] = []
    end = -1
    for view in sorted(views, key=lambda view: (view.start, view.end)):
        if groups and view.start < end and view.start < view.end:
            groups[-1].append(view)
        else:
            groups.append([view])
        end = max(end, view.end)
    return groups


def are_alike(group: Sequence[View[_T]]) -> bool:
    """Whether all of a group are one tensor."""
    return len({view.geometry for view in group}) == 1


def begins(group: Sequence[View[_T]]) -> int:
    """Return the byte at which a storage of a group's own begins."""
    return group[0].start // _ALIGNMENT * _ALIGNMENT


def _needed(group: Sequence[View[_T]]) -> int:
    span = max(view.end for view in group) - group[0].start
    return min(span, group[0].nbytes) if are_alike(group) else span


def _own_storage(group: list[View[torch.Tensor]]) -> dict[int, torch.Tensor]:
    """Return tensors like those of a group, in a storage that holds these alone."""
    first = group[0].tensor.detach()
    if are_alike(group) and group[0].nbytes <= group[0].end - group[0].start:
        copy = first.clone(memory_format=torch.preserve_format)
        return {id(view.tensor): _like(view.tensor, copy.detach()) for view in group}
    start, end = begins(group), max(view.end for view in group)
    empty = torch.empty(0, dtype=torch.uint8, device=first.device)
    storage = empty.set_(first.untyped_storage(), start, (end - start,), (1,)).clone()
    result = {}
    for view in group:
        offset = (view.start - start) // view.tensor.element_size()
        copy = torch.empty(0, dtype=view.tensor.dtype, device=first.device)
        copy.set_(storage.untyped_storage(), offset, view.tensor.shape, view.tensor.stride())
        result[id(view.tensor)] = _like(view.tensor, copy)
    return result


def _like(tensor: torch.Tensor, copy: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(copy, requires_grad=tensor.requires_grad)
    return copy.requires_grad_() if tensor.requires_grad else copy
