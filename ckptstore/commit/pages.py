"""First touches of memory, many pages at a time: one by one they cost most of a load."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

__all__ = ["populate"]

_POPULATE_WRITE = 23  # Linux 5.14; before, it is refused, and pages come as they are touched.
_LEAST = 2**20


def populate(memory: memoryview) -> None:
    """Have the system give the pages of memory that is about to be filled."""
    if memory.nbytes < _LEAST or memory.readonly:
        return
    advise = _advise()
    if advise is not None:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (address + memory.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(first, last - first, _POPULATE_WRITE)


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return madvise
