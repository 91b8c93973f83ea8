"""Which reads fill many pieces of memory: few large ones, whole blocks where blocks are proved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Span", "spans"]

_MOST_GAP = 8 * 2**20  # What is read beside the pieces costs memory in every thread.
_CLOSE = 64 * 2**10


@dataclass
class Span:
    """One read of consecutive bytes.

    Attributes:
        start: of the first byte.
        end: behind the last one.
        pieces: where some of them go: the place of each, and its memory.
    """

    start: int
    end: int
    pieces: list[tuple[int, memoryview]]

    @property
    def gap(self) -> int:
        """Bytes that go nowhere."""
        return self.end - self.start - sum(len(memory) for _, memory in self.pieces)

    def targets(self) -> list[memoryview]:
        """Return memory for each of the bytes in order, with some of its own for the gaps."""
        spare, found, at = memoryview(bytearray(self.gap)), [], self.start
        for place, memory in [*self.pieces, (self.end, spare[:0])]:
            if place > at:
                found.append(spare[: place - at])
                spare = spare[place - at :]
            found.append(memory)
            at = place + len(memory)
        return [memory for memory in found if memory]


def spans(
    pieces: Iterable[tuple[int, memoryview]],
    *,
    size: int,
    block: int,
    whole: bool,
    most: int,
) -> list[Span]:
    """Return the reads that fill some pieces.

    Args:
        pieces: the place in the file and the memory of each; they do not overlap.
        size: bytes in the file.
        block: bytes in a block, the last one aside.
        whole: whether blocks are read as a whole.
        most: bytes of a read that are enough, if a block has not more.

    Raises:
        ValueError: two pieces overlap.
    """
    found: list[Span] = []
    for span in _small_spans(sorted(pieces, key=_place), size, block, whole=whole):
        last = found[-1] if found else None
        if (
            last is not None
            and span.start - last.end <= (0 if whole else _CLOSE)
            and span.end - last.start <= most
            and last.gap + span.gap + span.start - last.end <= _MOST_GAP
        ):
            last.end = span.end
            last.pieces += span.pieces
        else:
            found.append(span)
    return found


def _place(piece: tuple[int, memoryview]) -> int:
    return piece[0]


def _small_spans(
    pieces: Sequence[tuple[int, memoryview]], size: int, block: int, *, whole: bool
) -> Iterator[Span]:
    """Return the least that has to be read: a block that is touched, or a part of one piece."""
    last: Span | None = None
    end = 0
    for place, memory in pieces:
        if memory and place < end:
            raise ValueError(f"two pieces overlap at byte {place}")
        end = max(end, place + len(memory))
        for start, part in _in_blocks(place, memory, block):
            first = start - start % block if whole else start
            stop = min(first + block, size) if whole else start + len(part)
            if last is not None and whole and last.start == first:
                last.pieces.append((start, part))
                continue
            if last is not None:
                yield last
            last = Span(first, stop, [(start, part)])
    if last is not None:
        yield last


def _in_blocks(place: int, memory: memoryview, block: int) -> Iterator[tuple[int, memoryview]]:
    while memory:
        count = block - place % block
        yield place, memory[:count]
        place, memory = place + count, memory[count:]
