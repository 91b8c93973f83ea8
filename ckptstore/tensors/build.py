"""Tensors out of stubs: only the records that a part of a file touches are read."""

from __future__ import annotations

import ctypes
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ckptstore.errors import CorruptionError, UnsupportedError
from ckptstore.ptfile import Size, StorageStub, TensorStub, Token
from ckptstore.tensors.records import Records

__all__ = ["buildable", "built"]

_TOKENS = {"dtype", "device", "layout", "qscheme"}
_VALUES = (type(None), bool, int, float, complex, str, bytes, bytearray, set)
_CONTAINERS = (dict, OrderedDict, Counter, list, tuple)


def buildable(tree: Any) -> bool:
    """Whether `built` can make all of it; the rest (sparse, quantized, ...) is torch's business."""
    for value in _walk(tree):
        if isinstance(value, TensorStub):
            if not value.plain or value.record is None:
                return False
        elif isinstance(value, Token):
            if value.kind not in _TOKENS:
                return False
        elif type(value) not in (*_VALUES, *_CONTAINERS, Size):
            return False
    return True


def built(tree: Any, records: Records, map_location: Any) -> Any:
    """Return a tree with tensors in the place of its stubs; what shared a record still does."""
    stubs = {
        value.record: value.storage
        for value in _walk(tree)
        if isinstance(value, TensorStub) and value.record is not None and value.storage is not None
    }
    found = records.archive.records
    storages = {
        name: _storage(stubs[name], name, records, map_location)
        for name in sorted(stubs, key=lambda name: found[name].header)
    }
    return _Builder(storages, records.archive.where).build(tree)


def _walk(tree: Any) -> Iterator[Any]:
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, Mapping):
            waiting.extend(key for key in value if isinstance(key, Token))
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)) and not isinstance(value, Size):
            waiting.extend(value)


def _storage(
    stub: StorageStub, name: str, records: Records, map_location: Any
) -> torch.UntypedStorage:
    """Read one record into memory of its own, and bring it where it belongs."""
    target = map_location
    if isinstance(map_location, Mapping):
        target = map_location.get(stub.device, stub.device)
    if target is None:
        target = stub.device
    if str(target) == "meta":
        return torch.empty(stub.nbytes, dtype=torch.uint8, device="meta").untyped_storage()
    flat = torch.empty(stub.nbytes, dtype=torch.uint8)
    records.read_into(name, _memory(flat))
    if isinstance(target, Callable):  # type: ignore[arg-type]
        moved = target(flat.untyped_storage(), stub.device)
        if isinstance(moved, torch.UntypedStorage):
            return moved
        target = stub.device
    try:
        return flat.to(target).untyped_storage()
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, ImportError, NotImplementedError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"{records.archive.where} was saved on the device {str(target)!r}, which is not "
            f"available here: {first}; say with map_location where its tensors go"
        ) from error


def _memory(flat: torch.Tensor) -> memoryview:
    if not flat.numel():
        return memoryview(bytearray())
    # The tensor outlives the view: it is read into and let go of within one call.
    return memoryview((ctypes.c_char * flat.numel()).from_address(flat.data_ptr())).cast("B")


class _Builder:
    def __init__(self, storages: Mapping[str, torch.UntypedStorage], where: str) -> None:
        self._storages = storages
        self._where = where
        self._done: dict[int, Any] = {}

    def build(self, value: Any) -> Any:
        if not isinstance(value, (TensorStub, Token, *_CONTAINERS)):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = self._made(value)
        return self._done[id(value)]

    def _made(self, value: Any) -> Any:
        if isinstance(value, TensorStub):
            return self._tensor(value)
        if isinstance(value, Token):
            device = value.kind == "device"
            return self._device(value.name) if device else getattr(torch, value.name)
        if isinstance(value, Size):
            return torch.Size(value)
        if isinstance(value, dict):
            result = type(value)()
            for key, item in value.items():
                result[self.build(key)] = self.build(item)
            metadata = getattr(value, "_metadata", None)
            if isinstance(value, OrderedDict) and metadata is not None:
                result._metadata = self.build(metadata)  # type: ignore[attr-defined]
            return result
        items = [self.build(item) for item in value]
        return items if isinstance(value, list) else tuple(items)

    def _device(self, name: str) -> torch.device:
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise CorruptionError(
                f"{self._where} is damaged: it names the device {name!r}, which there cannot be; "
                "restore it from a good copy"
            ) from error

    def _tensor(self, stub: TensorStub) -> torch.Tensor:
        storage = self._storages[str(stub.record)]
        tensor = torch.empty(0, dtype=getattr(torch, stub.dtype), device=storage.device)
        tensor.set_(storage, stub.offset, stub.shape, stub.stride)
        if stub.parameter:
            return torch.nn.Parameter(tensor, requires_grad=stub.requires_grad)
        return tensor.requires_grad_() if stub.requires_grad else tensor
