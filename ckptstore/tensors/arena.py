"""Memory that copies are made into, again and again, and that another process can look into.

Large slabs, given away piece by piece from their beginnings. Nothing is freed one by one: `rewind`
gives everything back at once, and the same requests in the same order then get the same places,
whose first touches, several times as dear as a copy, are over.
"""

from __future__ import annotations

import bisect
import mmap
import os
import weakref
from typing import Literal

import torch

from ckptstore.tensors.memory import memory_of

__all__ = ["Arena"]

_LEAST = 2**20
# What lies untouched at the end of a slab takes no memory, but for pinned ones.
_MOST = {"shared": 256 * 2**20, "own": 256 * 2**20, "pinned": 16 * 2**20}
_ALIGNMENT = 64


class Arena:
    """Gives memory away.

    Args:
        kind: ``shared`` with other processes (Linux), this process's ``own``, or ``pinned``, from
            which a GPU copies by itself. Where the system refuses to share, it is ``own``.

    Attributes:
        kind: what it came to be.
        used: bytes that are given away.
    """

    def __init__(self, kind: Literal["shared", "own", "pinned"]) -> None:
        shares = hasattr(os, "memfd_create")
        self.kind = "own" if kind == "shared" and not shares else kind
        self.used = 0
        self._count = 0
        self._slabs: list[_Slab] = []
        self._at = 0
        self._sort()

    def take(self, size: int) -> torch.UntypedStorage:
        """Return memory of a size; it is this caller's until `rewind`."""
        if not size:
            return torch.empty(0, dtype=torch.uint8).untyped_storage()
        slab = next((s for s in self._slabs[self._at :] if s.size - s.used >= size), None)
        if slab is None:
            slab = self._another(size)
            self._slabs.append(slab)
            self._sort()
        # Only the slab that is being filled is looked at again, so that places repeat.
        self._at = self._slabs.index(slab)
        start, slab.used = slab.used, slab.used + -(-size // _ALIGNMENT) * _ALIGNMENT
        self.used += size
        return slab.piece(start, size)

    def rewind(self) -> None:
        """Say that nothing of what was given away is needed any more."""
        for slab in self._slabs:
            slab.used = 0
        self.used = self._at = 0

    def trim(self) -> None:
        """Let go of the slabs of which nothing is given away."""
        self._slabs = [slab for slab in self._slabs if slab.used]
        self._sort()

    def shared(self) -> dict[int, tuple[int, int]]:
        """Return the slabs that another process can map: number, and descriptor and size of each.

        A number stands for one slab for ever.
        """
        return {s.number: (s.descriptor, s.size) for s in self._slabs if s.descriptor is not None}

    def place(self, address: int, size: int) -> tuple[int, int] | None:
        """Return in which shared slab some memory lies, and where in it; None for any other."""
        at = bisect.bisect_right(self._addresses, address) - 1
        if at < 0:
            return None
        slab = self._by_address[self._addresses[at]]
        inside = address + size <= slab.address + slab.size
        return (slab.number, address - slab.address) if inside else None

    def _sort(self) -> None:
        """Note where shared slabs lie; `place` is asked for every tensor."""
        self._by_address = {s.address: s for s in self._slabs if s.descriptor is not None}
        self._addresses = sorted(self._by_address)

    def keep(self, data: memoryview) -> tuple[int, int] | None:
        """Copy bytes into shared memory, and return where to; None where it cannot be shared."""
        piece = self.take(len(data))
        memory_of(piece)[:] = data
        return self.place(piece.data_ptr(), len(data))

    def _another(self, size: int) -> _Slab:
        self._count += 1
        whole = sum(slab.size for slab in self._slabs)
        size = max(size, min(max(whole, _LEAST), _MOST[self.kind]))
        if self.kind == "shared":
            try:
                return _SharedSlab(self._count, size)
            except OSError:
                self.kind = "own"  # There is not enough of it, or a sandbox allows none.
        return _Slab(self._count, size, pinned=self.kind == "pinned")


class _Slab:
    descriptor: int | None = None

    def __init__(self, number: int, size: int, *, pinned: bool = False) -> None:
        self.number = number
        self.size = size
        self.used = 0
        self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        self.address = self._memory.data_ptr()

    def piece(self, start: int, size: int) -> torch.UntypedStorage:
        """Return a part as a storage of its own."""
        return torch.frombuffer(
            memory_of(self._memory.untyped_storage()), dtype=torch.uint8, count=size, offset=start
        ).untyped_storage()


class _SharedSlab(_Slab):
    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.used = 0
        self.descriptor = descriptor = os.memfd_create("ckptstore")
        weakref.finalize(self, os.close, descriptor)
        os.ftruncate(descriptor, size)
        self._memory = torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)
        self.address = self._memory.data_ptr()
