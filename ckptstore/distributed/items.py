"""The items of a rank's plan: which file and key each gets, and what is written of it."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem, WriteItemType

from ckptstore import tensors
from ckptstore.distributed.places import Place, Places
from ckptstore.errors import UnsupportedError
from ckptstore.formats.shards import chunk_name

__all__ = ["Placed", "placed_items", "resolved"]

Placed = tuple[WriteItem, Place, str, int]
"""An item, where it belongs, its key in the file, and its size in bytes (0 for a value)."""


def placed_items(plan: SavePlan, places: Places) -> list[Placed]:
    """Return where each item of a plan belongs, under which key, and how many bytes it has."""
    paths = plan.planner_data or {}
    several = Counter(item.index.fqn for item in plan.items)
    found = []
    for item in plan.items:
        fqn, size = item.index.fqn, 0
        place = places.of(paths.get(fqn, (fqn,)), is_tensor=item.type is not WriteItemType.BYTE_IO)
        key = place.key
        if item.tensor_data is not None:
            chunk = item.tensor_data.chunk
            size = prod(chunk.sizes) * item.tensor_data.properties.dtype.itemsize
            if several[fqn] > 1:
                key = f"{key}[{chunk_name(chunk.offsets, chunk.sizes)}]"
        found.append((item, place, key, size))
    return found


def resolved(item: WriteItem, planner: SavePlanner) -> Any:
    """Return what is to be written of an item: a plain tensor, or a value that is safe to load.

    Raises:
        UnsafeError: a value could only be read back by running code; the message names it.
        UnsupportedError: a tensor is no dense one.
    """
    data: Any = planner.resolve_data(item)
    what = f"the value {item.index.fqn!r}"
    if item.type is WriteItemType.BYTE_IO:
        data.seek(0)
        return tensors.load(data, where=what)
    tensor = data.detach()
    if not tensors.is_plain(tensor):
        raise UnsupportedError(
            f"{what} is a tensor of layout {tensor.layout} on {tensor.device}, which cannot be "
            "saved in shards; save a dense one"
        )
    return tensor
