"""Tensors out of stubs: only the records that a part of a file touches are read."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ckptstore.errors import CorruptionError, UnsupportedError
from ckptstore.ptfile import Size, StorageStub, TensorStub, Token
from ckptstore.tensors.memory import memory_of
from ckptstore.tensors.records import Records

__all__ = ["Builder", "buildable", "built", "read_storages", "storages_of", "stubs_of"]

_TOKENS = {"dtype", "device", "layout", "qscheme"}
_VALUES = (type(None), bool, int, float, complex, str, bytes, bytearray, set)
_MOST_PASSING = 64 * 2**20
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


def built(tree: Any, records: Records, map_location: Any, mapped: memoryview | None = None) -> Any:
    """Return a tree with tensors in the place of its stubs; what shared a record still does.

    Args:
        tree: with stubs.
        records: of the file.
        map_location: where the tensors go, as `torch.load` has it.
        mapped: the file as memory; the tensors then look into it, and nothing is read here.
    """
    stubs = storages_of(tree)
    if mapped is not None:
        storages = _mapped(stubs, records, mapped)
    else:
        storages = read_storages(stubs, records, map_location)
    return Builder(storages, records.archive.where).build(tree)


def storages_of(tree: Any) -> dict[str, StorageStub]:
    """Return the records that a tree touches."""
    return {name: stubs[0].storage for name, stubs in stubs_of(tree).items() if stubs[0].storage}


def stubs_of(tree: Any) -> dict[str, list[TensorStub]]:
    """Return the records that a tree touches, each with the tensors that look into it."""
    found: dict[str, list[TensorStub]] = {}
    for value in _walk(tree):
        if isinstance(value, TensorStub) and value.record is not None:
            found.setdefault(value.record, []).append(value)
    return found


def _walk(tree: Any) -> Iterator[Any]:
    waiting, seen = [tree], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, Mapping):
            waiting.extend(key for key in value if isinstance(key, Token))
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)) and not isinstance(value, Size):
            waiting.extend(value)


def read_storages(
    stubs: Mapping[str, StorageStub], records: Records, map_location: Any = "cpu"
) -> dict[str, torch.UntypedStorage]:
    """Read records into memory of their own, and bring them where they belong."""
    found = records.archive.records
    storages: dict[str, torch.UntypedStorage] = {}
    waiting: dict[str, torch.UntypedStorage] = {}
    size = 0

    def bring() -> None:
        records.read_all({name: memory_of(storage) for name, storage in waiting.items()})
        for name, storage in waiting.items():
            storages[name] = _placed(storage, stubs[name], map_location, records.archive.where)
        waiting.clear()

    for name in sorted(stubs, key=lambda name: found[name].header):
        target = _target(stubs[name], map_location)
        if str(target) == "meta":
            empty = torch.empty(stubs[name].nbytes, dtype=torch.uint8, device="meta")
            storages[name] = empty.untyped_storage()
            continue
        waiting[name] = torch.empty(stubs[name].nbytes, dtype=torch.uint8).untyped_storage()
        # What does not stay here must not all be here at once.
        size += 0 if str(target) == "cpu" else stubs[name].nbytes
        if size > _MOST_PASSING:
            bring()
            size = 0
    bring()
    return storages


def _mapped(
    stubs: Mapping[str, StorageStub], records: Records, mapped: memoryview
) -> dict[str, torch.UntypedStorage]:
    """Return storages that look into the file."""
    found = {}
    for name, stub in stubs.items():
        start = records.start_in(mapped, records.archive.records[name])
        if stub.nbytes:
            flat = torch.frombuffer(mapped, dtype=torch.uint8, offset=start, count=stub.nbytes)
        else:
            flat = torch.empty(0, dtype=torch.uint8)
        found[name] = flat.untyped_storage()
    return found


def _target(stub: StorageStub, map_location: Any) -> Any:
    if isinstance(map_location, Mapping):
        return map_location.get(stub.device, stub.device)
    return stub.device if map_location is None else map_location


def _placed(
    storage: torch.UntypedStorage, stub: StorageStub, map_location: Any, where: str
) -> torch.UntypedStorage:
    """Bring a record where it belongs."""
    target = _target(stub, map_location)
    if isinstance(target, Callable):  # type: ignore[arg-type]
        moved = target(storage, stub.device)
        if isinstance(moved, torch.UntypedStorage):
            return moved
        target = stub.device
    try:
        return torch.empty(0, dtype=torch.uint8).set_(storage).to(target).untyped_storage()
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, ImportError, NotImplementedError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"{where} was saved on the device {str(target)!r}, which is not "
            f"available here: {first}; say with map_location where its tensors go"
        ) from error


class Builder:
    """Puts tensors in the places of stubs.

    Args:
        storages: the records by name.
        where: what to call the file in errors.
    """

    def __init__(self, storages: Mapping[str, torch.UntypedStorage], where: str) -> None:
        self._storages = storages
        self._where = where
        self._done: dict[int, Any] = {}

    def build(self, value: Any) -> Any:
        """Return a value with tensors in it; what was one object is one again."""
        if not isinstance(value, (TensorStub, Token, *_CONTAINERS)):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = self._made(value)
        return self._done[id(value)]

    def _made(self, value: Any) -> Any:
        if isinstance(value, TensorStub):
            return self.tensor(value)
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

    def tensor(self, stub: TensorStub) -> Any:
        """Return what stands in the place of a stub."""
        storage = self._storages[str(stub.record)]
        tensor = torch.empty(0, dtype=getattr(torch, stub.dtype), device=storage.device)
        try:
            tensor.set_(storage, stub.offset, stub.shape, stub.stride)
        except RuntimeError as error:  # An empty one may have sizes whose product is too large.
            raise CorruptionError(
                f"{self._where} is damaged: it holds a tensor of shape {tuple(stub.shape)}, which "
                "there cannot be; restore it from a good copy"
            ) from error
        if stub.parameter:
            return torch.nn.Parameter(tensor, requires_grad=stub.requires_grad)
        return tensor.requires_grad_() if stub.requires_grad else tensor
