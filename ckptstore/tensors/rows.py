"""A tensor whose boxes lie in several places, put together row by row (G6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch

from ckptstore.tensors.memory import memory_of

__all__ = ["Boxed", "rows_of_boxes"]

_PIECE = 8 * 2**20

_Place = tuple[int, ...]


@dataclass(frozen=True)
class Boxed:
    """A box out of a tensor.

    Attributes:
        offsets: where it begins in each dimension.
        sizes: of each dimension.
        read: fills memory with its own bytes, in row-major order, from a place on. It is called
            with one place after another, without a gap.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    read: Callable[[int, memoryview], None]


def rows_of_boxes(
    dtype: str, shape: tuple[int, ...], boxes: Sequence[Boxed]
) -> Iterator[memoryview]:
    """Yield a tensor's bytes in row-major order, in memory that is used again.

    Args:
        dtype: torch's name without the prefix.
        shape: of the whole tensor.
        boxes: which cover it, and do not overlap.

    Raises:
        CorruptionError, StorageError: what reading the boxes raises.
    """
    size = getattr(torch, dtype).itemsize
    most = max(1, _PIECE // size)
    buffers = [torch.empty(min(most, prod(shape)) * size, dtype=torch.uint8) for _ in range(2)]
    whole, scratch = (memory_of(buffer.untyped_storage()) for buffer in buffers)
    for begin, end in _regions(shape, most):
        sizes = _sizes(begin, end)
        target = buffers[0][: prod(sizes) * size].view(*sizes, size)
        for box in boxes:
            first, last = _common(begin, end, box)
            part = _sizes(first, last)
            if min(part, default=1) <= 0:
                continue
            # Of a region some first places are fixed, and all of the last dimensions is in it, so
            # what it has of a box lies in the box without a gap.
            start, count = _number(first, box) * size, prod(part) * size
            if part == sizes:
                box.read(start, whole[:count])
                continue
            box.read(start, scratch[:count])
            inner = target
            for dimension, (at, low, length) in enumerate(zip(first, begin, part, strict=True)):
                inner = inner.narrow(dimension, at - low, length)
            inner.copy_(buffers[1][:count].view(*part, size))
        yield whole[: prod(sizes) * size]


def _regions(shape: tuple[int, ...], most: int) -> Iterator[tuple[_Place, _Place]]:
    """Part a tensor into boxes that lie in it without a gap, in order, of so many elements."""
    if not prod(shape):
        return
    split = next((d for d in range(len(shape)) if prod(shape[d + 1 :]) <= most), 0)
    if not shape or prod(shape) <= most:
        yield (0,) * len(shape), shape
        return
    rows, rest = max(1, most // prod(shape[split + 1 :])), shape[split + 1 :]
    for fixed in product(*map(range, shape[:split])):
        for start in range(0, shape[split], rows):
            stop = min(start + rows, shape[split])
            after = tuple(number + 1 for number in fixed)
            yield (*fixed, start, *(0 for _ in rest)), (*after, stop, *rest)


def _sizes(begin: _Place, end: _Place) -> _Place:
    return tuple(stop - start for start, stop in zip(begin, end, strict=True))


def _common(begin: _Place, end: _Place, box: Boxed) -> tuple[_Place, _Place]:
    ends = (start + size for start, size in zip(box.offsets, box.sizes, strict=True))
    return (
        tuple(map(max, begin, box.offsets)),
        tuple(min(pair) for pair in zip(end, ends, strict=True)),
    )


def _number(place: _Place, box: Boxed) -> int:
    """Return how many elements of a box lie before a place."""
    number = 0
    for at, start, size in zip(place, box.offsets, box.sizes, strict=True):
        number = number * size + at - start
    return number
