"""Views without the rest of their storage: what is to be saved in the place of some tensors.

`torch.save` writes whole storages, so a row of a large table would bring the table along. Each
storage is looked at by the ranges that its tensors cover. Where they cover it, it stays as it is,
and nothing is copied. Otherwise ranges that overlap become one storage of their own, so that
tensors which share memory still share it after the load.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

__all__ = ["compacted", "is_plain"]

_ALIGNMENT = 16


@dataclass(frozen=True)
class _View:
    tensor: torch.Tensor
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.tensor.numel() * self.tensor.element_size()

    @property
    def geometry(self) -> tuple[object, ...]:
        tensor = self.tensor
        return (tensor.dtype, self.start, tensor.shape, tensor.stride())


def compacted(tensors: Iterable[torch.Tensor]) -> dict[int, torch.Tensor]:
    """Return what to save in the place of tensors that are views of more; by ``id`` of each.

    Args:
        tensors: all of an object's, each once.
    """
    storages: dict[tuple[torch.device, int], list[_View]] = {}
    for tensor in tensors:
        view = _view_of(tensor)
        if view is not None:
            key = (tensor.device, tensor.untyped_storage().data_ptr())
            storages.setdefault(key, []).append(view)
    replaced: dict[int, torch.Tensor] = {}
    for views in storages.values():
        groups = _overlapping(views)
        needed = sum(_needed(group) for group in groups)
        if needed < views[0].tensor.untyped_storage().nbytes():
            for group in groups:
                replaced |= _own_storage(group)
    return replaced


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


def _view_of(tensor: torch.Tensor) -> _View | None:
    """Return the bytes that a tensor covers, or None where it is better left as it is."""
    if not is_plain(tensor):
        return None
    size = tensor.element_size()
    start = int(tensor.storage_offset()) * size
    if not tensor.numel():
        return _View(tensor, start, start)
    reach = sum(
        int(n - 1) * int(step) for n, step in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return _View(tensor, start, start + (reach + 1) * size)


def _overlapping(views: list[_View]) -> list[list[_View]]:
    """Group views of one storage by the ranges that overlap; empty ones stand alone."""
    groups: list[list[_View]] = []
    end = -1
    for view in sorted(views, key=lambda view: (view.start, view.end)):
        if groups and view.start < end and view.start < view.end:
            groups[-1].append(view)
        else:
            groups.append([view])
        end = max(end, view.end)
    return groups


def _alike(group: list[_View]) -> bool:
    return len({view.geometry for view in group}) == 1


def _needed(group: list[_View]) -> int:
    span = max(view.end for view in group) - group[0].start
    return min(span, group[0].nbytes) if _alike(group) else span


def _own_storage(group: list[_View]) -> dict[int, torch.Tensor]:
    """Return tensors like those of a group, in a storage that holds these alone."""
    first = group[0].tensor.detach()
    if _alike(group) and group[0].nbytes <= group[0].end - group[0].start:
        copy = first.clone(memory_format=torch.preserve_format)
        return {id(view.tensor): _like(view.tensor, copy.detach()) for view in group}
    start = group[0].start // _ALIGNMENT * _ALIGNMENT
    end = max(view.end for view in group)
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
