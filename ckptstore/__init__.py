"""Checkpoints for PyTorch training: readable, whole or absent, proved, the same everywhere.

Importing this imports no torch, no fsspec and no s3fs; each name is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ckptstore.errors import (
    CkptstoreError,
    ConflictError,
    CorruptionError,
    NotFoundError,
    PluginError,
    StorageError,
    SupersededError,
    UnsafeError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from ckptstore.checkpoint import Checkpoint
    from ckptstore.commit.stored import Stored
    from ckptstore.differences import diff
    from ckptstore.hookspecs import hookimpl
    from ckptstore.manifest import TensorInfo
    from ckptstore.opening import open
    from ckptstore.preemption import Preemption
    from ckptstore.store import Keep, Store, save
    from ckptstore.tensors.randomness import RandomStates
    from ckptstore.tiers import Tier, Uploads
    from ckptstore.transfer import convert, sync, sync_steps

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "CkptstoreError",
    "ConflictError",
    "CorruptionError",
    "Keep",
    "NotFoundError",
    "PluginError",
    "Preemption",
    "RandomStates",
    "StorageError",
    "Store",
    "Stored",
    "SupersededError",
    "TensorInfo",
    "Tier",
    "UnsafeError",
    "UnsupportedError",
    "Uploads",
    "convert",
    "diff",
    "hookimpl",
    "open",
    "save",
    "sync",
    "sync_steps",
]

_HOMES = {
    "Checkpoint": "checkpoint",
    "Keep": "store",
    "Preemption": "preemption",
    "RandomStates": "tensors.randomness",
    "Store": "store",
    "Stored": "commit.stored",
    "TensorInfo": "manifest",
    "Tier": "tiers",
    "Uploads": "tiers",
    "convert": "transfer",
    "diff": "differences",
    "hookimpl": "hookspecs",
    "open": "opening",
    "save": "store",
    "sync": "transfer",
    "sync_steps": "transfer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
