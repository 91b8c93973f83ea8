"""How a file is cut into the parts of an upload, and what S3 allows of them.

S3 takes at most 10,000 parts for an object of at most 5 TiB, each of 5 MiB to 5 GiB but the last,
which may be smaller. All parts of a file have one size, which some servers insist on, unless the
size of the file was unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

__all__ = ["LARGEST", "MOST_PARTS", "Gatherer", "Part", "Placed", "copied_part_size", "part_size"]

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


def part_size(expected_size: int, *, resident: bool = True) -> int:
    """Return the size of parts for a file.

    8 MiB, so that a small file has several on their way at once; 32 MiB from 320 MiB on; and what
    leaves a tenth of 10,000 parts free from 300 GB on. For a file whose bytes are in memory only
    for this, 8 MiB, doubled until a tenth of 10,000 parts is free: whole chunks of a digest.

    Args:
        expected_size: bytes; 0 where unknown.
        resident: whether the bytes are in memory anyhow.
    """
    least = -(-expected_size * 10 // (9 * MOST_PARTS))
    if not resident:
        size = _SMALLEST
        while size < least:
            size *= 2
        return min(size, _LARGEST_PART)
    usual = min(max(_SMALLEST, expected_size // _USUAL_COUNT), _USUAL)
    return min(-(-max(usual, least) // _MIB) * _MIB, _LARGEST_PART)


def copied_part_size(size: int, wanted: int) -> int:
    """Return the size of parts for a copy of an object, ``wanted`` where 10,000 of it will do."""
    return min(max(wanted, -(-size // MOST_PARTS)), _LARGEST_PART)


@dataclass(frozen=True)
class Placed:
    """Where the service has some bytes already.

    Attributes:
        bucket: of the object.
        key: of the object.
        start: of the bytes in it.
    """

    bucket: str
    key: str
    start: int


@dataclass
class Part:
    """Some bytes of a file, one after the other.

    Attributes:
        number: from 1 on.
        views: the bytes; they stay as they are.
        size: how many.
        slabs: memory of ours that the views show, to be used again when the part is done.
        held: where the storage has all of these bytes in one piece, or None.
        supply: returns the bytes, where there are no views.
        owned: how many of the bytes are in memory for this part alone.
    """

    number: int
    views: list[memoryview] = field(default_factory=list)
    size: int = 0
    slabs: list[bytearray] = field(default_factory=list)
    held: Placed | None = None
    supply: Callable[[], memoryview] | None = None
    owned: int = 0


class Gatherer:
    """Cuts what comes into parts, without copying what is lent.

    Args:
        expected_size: of the file, in bytes; 0 where unknown: then parts grow, which is good for
            5 TiB.
        resident: whether what is lent is in memory anyhow.
    """

    def __init__(self, expected_size: int, *, resident: bool = True) -> None:
        self.size = 0
        self.part_size = part_size(expected_size, resident=resident)
        self._resident = resident
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
            if self._full:
                yield self.next()
            if self._filled == _SLAB:
                self._part.slabs.append(self._spare.pop() if self._spare else bytearray(_SLAB))
                self._part.owned += _SLAB
                self._filled = 0
            room = min(_SLAB - self._filled, self.part_size - self._part.size, len(data))
            view = memoryview(self._part.slabs[-1])[self._filled : self._filled + room]
            view[:] = data[:room]
            data = data[room:]
            self._filled += room
            self._add(view, None)

    def lend(self, data: memoryview, held: Placed | None) -> Iterator[Part]:
        """Take bytes that stay as they are, and give the full parts that more follows."""
        if len(data) < _COPIED_BELOW and held is None:
            yield from self.write(data)
            return
        while data:
            if self._full:
                yield self.next()
            view = data[: self.part_size - self._part.size]
            data = data[len(view) :]
            self._add(view, held)
            self._part.owned += 0 if self._resident else len(view)
            held = held and replace(held, start=held.start + len(view))

    def defer(
        self, size: int, supply: Callable[[], memoryview], held: Placed | None
    ) -> Iterator[Part]:
        """Take bytes that are asked for later, a part of them, and give the part before it."""
        if self._full:
            yield self.next()
        if self._part.size or size > self.part_size:
            yield from self.lend(supply(), held)
            return
        self._part.size, self._part.supply, self._part.held = size, supply, held
        self.size += size

    def reuse(self, part: Part) -> None:
        """Take back the memory of a part that is done."""
        self._spare += part.slabs
        part.views, part.slabs, part.supply = [], [], None

    @property
    def _full(self) -> bool:
        return self._part.size == self.part_size or self._part.supply is not None

    def _add(self, view: memoryview, held: Placed | None) -> None:
        part = self._part
        if not part.size:
            part.held = held
        elif part.held and held != replace(part.held, start=part.held.start + part.size):
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
