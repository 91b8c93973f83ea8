"""The memory of tensors: seen as bytes without a copy, and made so that first touches are cheap."""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable

import torch

__all__ = ["memory_of", "new_memory"]

_HUGE_FROM = 2**20  # Neighbouring allocations share huge pages, so smaller ones than 2 MiB gain.


class _Bytes(ctypes.Array[ctypes.c_char]):
    """Bytes somewhere, which keep alive whoever owns them."""

    _type_ = ctypes.c_char
    _length_ = 0
    owner: object


@functools.lru_cache(maxsize=4096)
def _kind(size: int) -> type[_Bytes]:
    return type("_Bytes", (_Bytes,), {"_length_": size})


def memory_of(storage: torch.UntypedStorage) -> memoryview:
    """Return the bytes of a storage on the CPU, without a copy; they stay as long as the view."""
    size = storage.nbytes()
    if not size:
        return memoryview(b"")
    array = _kind(size).from_address(storage.data_ptr())
    array.owner = storage
    return memoryview(array).cast("B")


def new_memory(size: int) -> torch.UntypedStorage:
    """Return memory of this many bytes, in huge pages where the system has them.

    First touches of 4 KiB pages cost most of a load.
    """
    storage = torch.empty(size, dtype=torch.uint8).untyped_storage()
    if size >= _HUGE_FROM and (advise := _advice()) is not None:
        advise(storage.data_ptr(), size)
    return storage


@functools.cache
def _advice() -> Callable[[int, int], None] | None:
    """Return what asks the system for huge pages; None where there is no such thing."""
    wish = getattr(mmap, "MADV_HUGEPAGE", None)
    if wish is None:
        return None
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    page = mmap.PAGESIZE

    def advise(address: int, size: int) -> None:
        first, last = -(-address // page) * page, (address + size) // page * page
        if last > first:
            madvise(first, last - first, wish)  # Where it is refused, all is as before.

    return advise
