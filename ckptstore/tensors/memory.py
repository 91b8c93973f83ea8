"""The memory of tensors, seen as bytes without a copy."""

from __future__ import annotations

import ctypes
import functools

import torch

__all__ = ["bytes_of", "memory_of"]


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


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, without a copy, to read and to write.

    They stay as long as the view does.
    """
    start = int(tensor.storage_offset()) * tensor.element_size()
    size = tensor.numel() * tensor.element_size()
    return memory_of(tensor.untyped_storage())[start : start + size]
