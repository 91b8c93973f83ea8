"""Lightning's checkpoints through ckptstore: whole or absent, proved, readable, in S3 too.

``Trainer(plugins=[StoreCheckpointIO()])`` is all of it. Importing this imports neither Lightning
nor torch; each name is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptstore_lightning.callback import StoreModelCheckpoint
    from ckptstore_lightning.plugin import StoreCheckpointIO
    from ckptstore_lightning.reading import load_from_checkpoint

__all__ = ["StoreCheckpointIO", "StoreModelCheckpoint", "load_from_checkpoint"]

_HOMES = {
    "StoreCheckpointIO": "plugin",
    "StoreModelCheckpoint": "callback",
    "load_from_checkpoint": "reading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
