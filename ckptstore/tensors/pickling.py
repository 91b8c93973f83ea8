"""The pickle inside a `.pt`: what `torch.save` would write, with the storages it looks into."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch

from ckptstore.tensors.standing import Bytes, StandingStorage

__all__ = ["pickled"]

_PROTOCOL = 2
_STORAGES = frozenset((torch.storage.TypedStorage, torch.UntypedStorage, StandingStorage))


def pickled(obj: Any) -> tuple[bytes, dict[str, torch.UntypedStorage | Bytes]]:
    """Return an object's pickle, and the storages of its tensors by their keys, in order.

    Every tensor is said to be on the CPU, so that plain `torch.load` reads the file anywhere.

    Raises:
        RuntimeError: two tensors look at the same bytes as different types.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    pickler.dump(obj)
    return buffer.getvalue(), pickler.storages


class _Pickler(pickle.Pickler):
    """Names a storage where torch's own pickler would; torch's tensors reduce themselves to it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=_PROTOCOL)
        self.storages: dict[str, torch.UntypedStorage | Bytes] = {}
        self._keys: dict[int, str] = {}
        self._dtypes: dict[int, torch.dtype] = {}

    def persistent_id(self, obj: Any) -> tuple[Any, ...] | None:
        if type(obj) not in _STORAGES:  # Asked of every object there is: most of them are none.
            return None
        like, held = obj, None
        if isinstance(obj, StandingStorage):
            like, held = obj.like, obj.held
        storage: torch.UntypedStorage
        if isinstance(like, torch.storage.TypedStorage):
            storage, dtype = like._untyped_storage, like.dtype
            name: str = like._pickle_storage_type()  # type: ignore[no-untyped-call]
            kind, size = getattr(torch, name), dtype.itemsize
        else:
            storage, dtype = like, torch.uint8
            kind, size = torch.UntypedStorage, 1
        number = storage._cdata if held is None else id(held)
        address = storage.data_ptr() if held is None else id(held)
        if address and self._dtypes.setdefault(address, dtype) != dtype:
            raise RuntimeError(
                "Cannot save multiple tensors or storages that view the same data as different "
                "types"
            )
        key = self._keys.setdefault(number, str(len(self._keys)))
        self.storages[key] = storage if held is None else held
        nbytes = storage.nbytes() if held is None else held.nbytes
        return ("storage", kind, key, "cpu", nbytes // size)
