"""Entries as tensors that are read when they are written: their chunks, put together row by row.

What the pickles of their slices say is looked at once, before; a slice that holds something else
than the bytes of its chunk, row by row, makes its tensor be loaded.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, BinaryIO

from ckptstore import ptfile
from ckptstore.later import Later, Opened
from ckptstore.ptfile.crc import crc32
from ckptstore_dcp.loading import checked, load, planned, said
from ckptstore_dcp.metadata import Chunk, Entry, Item
from ckptstore_dcp.slices import Slices

__all__ = ["later"]


@dataclass(frozen=True)
class _Held:
    """Where the bytes of a chunk are.

    Attributes:
        chunk: which.
        opener: opens the file.
        start: of its first byte in it.
        record: with the CRC-32 of all of them.
        where: what to call it in errors.
    """

    chunk: Chunk
    opener: Callable[[], BinaryIO]
    start: int
    record: ptfile.Record
    where: str


def later(entries: Iterable[Entry], slices: Slices, opened: Opened, where: str) -> dict[str, Any]:
    """Return entries by name, with a `Later` in the place of each tensor that can be read so.

    Guarantee: nothing is executed (G5), each slice's CRCs are checked (G4), and a few MiB of a
    tensor are in memory at a time (G6).

    Args:
        entries: what is wanted.
        slices: of the folder.
        opened: keeps one of its files open while it is read from.
        where: what to call the metadata in errors.

    Raises:
        CorruptionError, UnsafeError, UnsupportedError: as `ckptstore_dcp.loading.load`.
    """
    wanted = list(entries)
    for entry in wanted:
        if entry.is_tensor:
            entry.check_covered(where)
    of: dict[Item, tuple[Entry, Chunk]] = {}
    for entry in wanted:
        planned(entry, of, where)
    held = _held({i: one for i, one in of.items() if one[0].is_tensor}, slices)
    loaded = load([e for e in wanted if not e.is_tensor or _lacks(e, held)], slices, where)
    return {e.name: loaded[e.name] if e.name in loaded else _later(e, held, opened) for e in wanted}


def _held(of: Mapping[Item, tuple[Entry, Chunk]], slices: Slices) -> dict[Item, _Held]:
    """Return where the bytes of chunks are, of those that lie row by row."""
    found: dict[Item, _Held] = {}
    with contextlib.closing(slices.opened(of)) as every:
        for item, file in every:
            entry, chunk = of[item]
            where = said(entry, item)
            pt = ptfile.read(file, where)
            stub = checked(entry, chunk, where)(pt.root)
            if pt.byteorder == sys.byteorder == "little" and _is_record(stub, pt):
                record = pt.records[stub.record]
                start = item.offset + pt.archive.start(file, record)
                found[item] = _Held(chunk, slices.opener(item.file), start, record, where)
    return found


def _is_record(stub: Any, pt: ptfile.PtFile) -> bool:
    """Whether a tensor is a record, row by row, and nothing besides."""
    if not isinstance(stub, ptfile.TensorStub) or not stub.plain or stub.record is None:
        return False
    step, plain = 1, not stub.parameter and not stub.requires_grad
    for size, stride in zip(reversed(stub.shape), reversed(stub.stride), strict=True):
        plain = plain and (size == 1 or stride == step)
        step *= size
    return plain and stub.offset == 0 and pt.records[stub.record].size == stub.nbytes


def _lacks(entry: Entry, held: Mapping[Item, _Held]) -> bool:
    if not prod(entry.shape):
        return True  # There is nothing to be read, and torch says whether its shape can be.
    return any(chunk.item not in held for chunk in entry.chunks if prod(chunk.sizes))


def _later(entry: Entry, held: Mapping[Item, _Held], opened: Opened) -> Later:
    chunks = [held[c.item] for c in entry.chunks if c.item is not None and c.item in held]
    pieces = partial(_pieces, entry, chunks, opened)
    return Later(entry.dtype, entry.shape, entry.nbytes, pieces)


def _pieces(entry: Entry, held: Iterable[_Held], opened: Opened) -> Iterator[memoryview]:
    from ckptstore import tensors

    boxes = [tensors.Boxed(h.chunk.offsets, h.chunk.sizes, _Reading(h, opened).read) for h in held]
    yield from tensors.rows_of_boxes(entry.dtype, entry.shape, boxes)


class _Reading:
    """Reads a chunk from its beginning to its end, and compares its CRC-32 there."""

    def __init__(self, held: _Held, opened: Opened) -> None:
        self._held = held
        self._opened = opened
        self._crc32 = 0

    def read(self, start: int, memory: memoryview) -> None:
        """Fill memory with the next bytes."""
        held = self._held
        self._opened.read(held.opener, held.start + start, memory, held.where)
        self._crc32 = crc32(memory, self._crc32)
        if start + len(memory) == held.record.size:
            ptfile.check_crc32(held.record, self._crc32, held.where)
