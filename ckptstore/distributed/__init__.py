"""Sharded saves: each process of a training run writes its own part of a state, in parallel.

For `torch.distributed.checkpoint` there are a storage writer and a storage reader, `StoreWriter`
and `StoreReader`; for everybody else two functions, `save_sharded` and `load_sharded`. What they
write has the format ``sharded``, which every ckptstore reads, without torch.distributed too.

Guarantee: one manifest commits the files of all processes at once. Whichever of them dies, and
whenever, the location opens as the whole old state or the whole new one (G2).

Importing this imports no torch; each name is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptstore.distributed.reader import StoreReader
    from ckptstore.distributed.states import load_sharded, save_sharded
    from ckptstore.distributed.writer import StoreWriter

__all__ = ["StoreReader", "StoreWriter", "load_sharded", "save_sharded"]

_HOMES = {
    "StoreReader": "reader",
    "StoreWriter": "writer",
    "load_sharded": "states",
    "save_sharded": "states",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
