"""That the chunks of a tensor are the whole tensor: none overlaps another, and none is missing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ckptstore import CorruptionError, UnsupportedError
from ckptstore_dcp.metadata import Chunk, Entry

__all__ = ["check_covered"]

# Meshes of two dimensions leave some hundred chunks side by side, not thousands.
_MOST_COMPARED = 20_000_000


def check_covered(entry: Entry, where: str) -> None:
    """Check that the chunks of a tensor cover it exactly.

    Chunks that lie within it and do not overlap cover it when they have as many elements as it has.
    Overlaps are looked for along the dimension with the most cuts, so that only chunks side by side
    are compared.

    Raises:
        CorruptionError: they overlap, reach out of it, or leave a gap.
        UnsupportedError: there are more side by side than can be compared.
    """
    chunks = [chunk for chunk in entry.chunks if prod(chunk.sizes)]
    for chunk in entry.chunks:
        ends = map(sum, zip(chunk.offsets, chunk.sizes, strict=True))
        if any(end > size for end, size in zip(ends, entry.shape, strict=True)):
            raise _wrong(entry, where, f"the chunk at {_shown(chunk)} reaches out of it")
    _check_apart(entry, chunks, where)
    covered, size = sum(prod(chunk.sizes) for chunk in chunks), prod(entry.shape)
    if covered != size:
        raise _wrong(entry, where, f"its chunks have {covered} of its {size} elements")


def _check_apart(entry: Entry, chunks: Sequence[Chunk], where: str) -> None:
    if len(chunks) < 2:
        return
    along = max(
        range(len(entry.shape)),
        key=lambda dimension: len({chunk.offsets[dimension] for chunk in chunks}),
        default=None,
    )
    beside: list[Chunk] = []
    left = _MOST_COMPARED
    for chunk in sorted(
        chunks, key=lambda chunk: chunk.offsets if along is None else (chunk.offsets[along],)
    ):
        if along is not None:
            start = chunk.offsets[along]
            beside = [one for one in beside if one.offsets[along] + one.sizes[along] > start]
        left -= len(beside) + 1
        if left < 0:
            raise UnsupportedError(
                f"{where} has {entry.name!r} in {len(chunks)} chunks, too many side by side to see "
                "that none overlaps another; save it with fewer"
            )
        for other in beside:
            if _overlap(chunk, other):
                what = f"the chunks at {_shown(other)} and {_shown(chunk)} overlap"
                raise _wrong(entry, where, what)
        beside.append(chunk)


def _overlap(one: Chunk, other: Chunk) -> bool:
    return all(
        a < b + other_size and b < a + size
        for a, size, b, other_size in zip(
            one.offsets, one.sizes, other.offsets, other.sizes, strict=True
        )
    )


def _shown(chunk: Chunk) -> str:
    return str(list(chunk.offsets))


def _wrong(entry: Entry, where: str, what: str) -> CorruptionError:
    return CorruptionError(
        f"{where} is damaged: the tensor {entry.name!r} has the shape {list(entry.shape)}, and "
        f"{what}; restore it from a good copy"
    )
