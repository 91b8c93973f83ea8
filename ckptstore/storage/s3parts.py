"""How a file is cut into the parts of an upload, and what S3 allows of them.

S3 takes at most 10,000 parts for an object of at most 5 TiB, each of 5 MiB to 5 GiB but the last,
which may be smaller. All parts of a file have one size, which some servers insist on, unless the
size of the file was unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ckptstore.storage.base import Held

__all__ = ["LARGEST", "MOST_PARTS", "Gatherer", "Part", "copied_part_size", "part_size"]

_MIB = 2**20
LARGEST = 5 * 2**40
MOST_PARTS = 10_000
_LARGEST_PART = 5 * 2**30
_SMALLEST = 8 * _MIB
_USUAL = 32 * _MIB
"""Each request costs milliseconds of this machine's time, and larger parts gain no more."""

_USUAL_COUNT = 10
_GROWS_AFTER = 700
_LARGEST_GROWN = 2**30
_COPIED_BELOW = 64 * 2**10
_SLAB = _MIB


def part_size(expected_size: int) -> int:
    """Return the size of parts for a file.

    8 MiB, so that a small file has several on their way at once; 32 MiB from 320 MiB on; and what
    leaves a tenth of 10,000 parts free from 300 GB on.

    Args:
        expected_size: bytes; 0 where unknown.
    """
    least = -(-expected_size * 10 // (9 * MOST_PARTS))
    usual = min(max(_SMALLEST, expected_size // _USUAL_COUNT), _USUAL)
    return min(-(-max(usual, least) // _MIB) * _MIB, _LARGEST_PART)


def copied_part_size(size: int, wanted: int) -> int:
    """Return the size of parts for a copy of an object, ``wanted`` where 10,000 of it will do."""
    return min(max(wanted, -(-size // MOST_PARTS)), _LARGEST_PART)


@dataclass
class Part:
    """Some bytes of a file, one after the other.

    Attributes:
        number: from 1 on.
        views: the bytes; they stay as they are.
        size: how many.
        slabs: memory of ours that the views show, to be used again when the part is done.
        held: where the storage has all of these bytes in one piece, or None.
    """

    number: int
    views: list[memoryview] = field(default_factory=list)
    size: int = 0
    slabs: list[bytearray] = field(default_factory=list)
    held: Held | None = None


class Gatherer:
    """Cuts what comes into parts, without copying what is lent.

    Args:
        expected_size: of the file, in bytes; 0 where unknown: then parts grow, which is good for
            5 TiB.
    """

    def __init__(self, expected_size: int) -> None:
        self.size = 0
        self.part_size = part_size(expected_size)
        self._grows = not expected_size
        self._part = Part(1)
        self._filled = _SLAB
        self._spare: list[bytearray] = []

    @property
    def part(self) -> Part:
        """The part that is being gathered; a full one stays until more comes."""
        return self._part

    def write(self, data: memoryview) -> Iterator[Part]:
        """Take bytes that will not stay, and give the full parts that more follows."""
        while data:
            if self._part.size == self.part_size:
                yield self.next()
            if self._filled == _SLAB:
                self._part.slabs.append(self._spare.pop() if self._spare else bytearray(_SLAB))
                self._filled = 0
            room = min(_SLAB - self._filled, self.part_size - self._part.size, len(data))
            view = memoryview(self._part.slabs[-1])[self._filled : self._filled + room]
            view[:] = data[:room]
            data = data[room:]
            self._filled += room
            self._add(view, None)

    def lend(self, data: memoryview, held: Held | None) -> Iterator[Part]:
        """Take bytes that stay as they are, and give the full parts that more follows."""
        if len(data) < _COPIED_BELOW and held is None:
            yield from self.write(data)
            return
        while data:
            if self._part.size == self.part_size:
                yield self.next()
            view = data[: self.part_size - self._part.size]
            data = data[len(view) :]
            self._add(view, held)
            held = held and Held(held.name, held.start + len(view))

    def reuse(self, part: Part) -> None:
        """Take back the memory of a part that is done."""
        self._spare += part.slabs
        part.views, part.slabs = [], []

    def _add(self, view: memoryview, held: Held | None) -> None:
        part = self._part
        if not part.size:
            part.held = held
        elif part.held and (
            held is None or held.name != part.held.name or held.start != part.held.start + part.size
        ):
            part.held = None
        part.views.append(view)
        part.size += len(view)
        self.size += len(view)

    def next(self) -> Part:
        """Return the part that was gathered, full or not, and begin another."""
        part = self._part
        self._part = Part(part.number + 1)
        self._filled = _SLAB  # What is left of a slab belongs to its part.
        if self._grows and not part.number % _GROWS_AFTER:
            self.part_size = min(self.part_size * 2, _LARGEST_GROWN)
        return part
