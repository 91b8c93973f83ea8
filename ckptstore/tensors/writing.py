"""Writes a `.pt` straight from the memory of its tensors: no copy, and each byte touched once.

Rule: an object all of whose tensors are plain is written here, any other one by torch itself
(`ckptstore.tensors.saving`); both are read by the same loaders.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch

from ckptstore.ptfile.writing import Taker, Writer
from ckptstore.tensors.memory import memory_of
from ckptstore.tensors.pickling import pickled
from ckptstore.tensors.standing import Bytes

__all__ = ["write_plain"]

_SLICE = 2**20  # What is digested is still in a core's cache when it is written.
_BOUNCE = 32 * 2**20


def write_plain(tree: Any, sink: Taker) -> None:
    """Write an object whose tensors are plain; the memory of those on the CPU is lent.

    Args:
        tree: containers, plain values, tensors, and what stands for those that are read here.
        sink: takes the file's bytes.

    Raises:
        RuntimeError: two tensors look at the same bytes as different types.
        pickle.PicklingError: something in it cannot be pickled.
    """
    data, storages = pickled(tree)
    writer = Writer(sink)
    writer.record("data.pkl", [memoryview(data)], len(data))
    for name, text in _MARKS.items():
        writer.record(name, [memoryview(text)], len(text))
    for key, storage in storages.items():
        if isinstance(storage, Bytes):
            writer.record(f"data/{key}", storage.pieces(), storage.nbytes, lent=False)
            continue
        here = storage.device.type == "cpu"
        pieces = _slices(memory_of(storage)) if here else _fetched(storage)
        writer.record(f"data/{key}", pieces, storage.nbytes(), lent=here)
    writer.finish()


# torch's names: 1 says that storages come in the order of their keys.
_MARKS = {
    ".format_version": b"1",
    ".storage_alignment": b"64",
    "byteorder": sys.byteorder.encode(),
}


def _slices(memory: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(memory), _SLICE):
        yield memory[start : start + _SLICE]


def _fetched(storage: torch.UntypedStorage) -> Iterator[memoryview]:
    """Bring a storage from its device piece by piece, through memory that is used again."""
    size = storage.nbytes()
    if not size:
        return
    source = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    pinned = storage.device.type == "cuda"
    buffer = torch.empty(min(size, _BOUNCE), dtype=torch.uint8, pin_memory=pinned)
    memory = memory_of(buffer.untyped_storage())
    for start in range(0, size, _BOUNCE):
        count = min(_BOUNCE, size - start)
        buffer[:count].copy_(source[start : start + count])
        yield memory[:count]
