"""transformers' Trainer, and Accelerate, through a store of ckptstore's.

Importing this imports neither torch nor transformers; each name is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptstore_transformers.accelerating import load_state, save_state
    from ckptstore_transformers.callback import StoreCallback
    from ckptstore_transformers.resuming import resume
    from ckptstore_transformers.uploading import upload

__all__ = ["StoreCallback", "load_state", "resume", "save_state", "upload"]

_HOMES = {
    "StoreCallback": "callback",
    "load_state": "accelerating",
    "resume": "resuming",
    "save_state": "accelerating",
    "upload": "uploading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
