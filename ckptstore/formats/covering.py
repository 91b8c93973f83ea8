"""That the chunks of a tensor are the whole tensor: none overlaps another, and none is missing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

from ckptstore.errors import CorruptionError, UnsupportedError

__all__ = ["Box", "check_covered"]

# Meshes of two dimensions leave some hundred chunks side by side, not thousands.
_MOST_COMPARED = 20_000_000


class Box(Protocol):
    """A box of a tensor."""

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where it begins, in elements."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of each dimension, in elements."""


def check_covered(
    name: str,
    shape: Sequence[int],
    chunks: Sequence[Box],
    where: str,
    *,
    may_be_empty: bool = False,
) -> None:
    """Check that boxes cover a tensor exactly.

    Boxes that lie within it and do not overlap cover it when they have as many elements as it has.
    Overlaps are looked for along the dimension with the most cuts, so that only boxes side by side
    are compared.

    Args:
        name: of the tensor.
        shape: of the tensor.
        chunks: the boxes.
        where: what says so, for errors.
        may_be_empty: whether there may be boxes without elements.

    Raises:
        CorruptionError: they overlap, reach out of it, or leave a gap.
        UnsupportedError: there are more side by side than can be compared.
    """
    for chunk in chunks:
        if not len(chunk.offsets) == len(chunk.sizes) == len(shape):
            raise _wrong(name, shape, where, f"the chunk at {list(chunk.offsets)} has another rank")
        ends = map(sum, zip(chunk.offsets, chunk.sizes, strict=True))
        if any(end > size for end, size in zip(ends, shape, strict=True)):
            raise _wrong(
                name, shape, where, f"the chunk at {list(chunk.offsets)} reaches out of it"
            )
        if not may_be_empty and not prod(chunk.sizes):
            raise _wrong(name, shape, where, f"the chunk at {list(chunk.offsets)} is empty")
    _check_apart(name, shape, [chunk for chunk in chunks if prod(chunk.sizes)], where)
    covered = sum(prod(chunk.sizes) for chunk in chunks)
    if covered != prod(shape):
        what = f"its chunks have {covered} of its {prod(shape)} elements"
        raise _wrong(name, shape, where, what)


def _check_apart(name: str, shape: Sequence[int], chunks: Sequence[Box], where: str) -> None:
    if len(chunks) < 2:
        return
    along = max(
        range(len(shape)),
        key=lambda dimension: len({chunk.offsets[dimension] for chunk in chunks}),
        default=None,
    )
    if along is None:
        raise _wrong(name, shape, where, "it has several chunks")
    beside: list[Box] = []
    left = _MOST_COMPARED
    for chunk in sorted(chunks, key=lambda chunk: chunk.offsets[along]):
        start = chunk.offsets[along]
        beside = [one for one in beside if one.offsets[along] + one.sizes[along] > start]
        left -= len(beside) + 1
        if left < 0:
            raise UnsupportedError(
                f"{where} has {name!r} in {len(chunks)} chunks, too many side by side to see "
                "that none overlaps another; save it with fewer"
            )
        for other in beside:
            if _overlap(chunk, other):
                at = f"{list(other.offsets)} and {list(chunk.offsets)}"
                raise _wrong(name, shape, where, f"the chunks at {at} overlap")
        beside.append(chunk)


def _overlap(one: Box, other: Box) -> bool:
    return all(
        a < b + other_size and b < a + size
        for a, size, b, other_size in zip(
            one.offsets, one.sizes, other.offsets, other.sizes, strict=True
        )
    )


def _wrong(name: str, shape: Sequence[int], where: str, what: str) -> CorruptionError:
    return CorruptionError(
        f"{where} is damaged: the tensor {name!r} has the shape {list(shape)}, and {what}; "
        "restore it from a good copy"
    )
