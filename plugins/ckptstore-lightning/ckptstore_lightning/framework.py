"""Lightning, under the name by which the program knows it: ``lightning`` or ``pytorch_lightning``.

Both are one code under two names, and the classes of one are not those of the other. A program
that has imported one of them goes on with it; otherwise it is the one that is installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from types import ModuleType

__all__ = ["adopted", "fabric", "pytorch"]

# What holds the Trainer, and what holds Fabric.
_NAMES = (("lightning.pytorch", "lightning.fabric"), ("pytorch_lightning", "lightning_fabric"))


def pytorch(module: str = "") -> ModuleType:
    """Return a module of what holds the Trainer, such as ``callbacks``; that itself by default."""
    return importlib.import_module(".".join(filter(None, (_chosen()[0], module))))


def fabric(module: str = "") -> ModuleType:
    """Return a module of what holds Fabric, such as ``plugins``."""
    return importlib.import_module(".".join(filter(None, (_chosen()[1], module))))


def adopted(cls: type) -> type:
    """Return a `CheckpointIO`, known as one to a second Lightning too, if the program has that.

    For a program that imports ``lightning`` and ``pytorch_lightning`` both.
    """
    for _, name in _NAMES:
        base = getattr(sys.modules.get(f"{name}.plugins.io.checkpoint_io"), "CheckpointIO", None)
        if base is not None and not issubclass(cls, base):
            base.register(cls)
    return cls


@functools.cache
def _chosen() -> tuple[str, str]:
    for names in _NAMES:
        if any(name in sys.modules for name in names):
            return names
    for names in _NAMES:
        if importlib.util.find_spec(names[0].partition(".")[0]) is not None:
            return names
    raise ModuleNotFoundError(
        "ckptstore-lightning needs Lightning, which is not installed; run: pip install lightning "
        "(or pytorch-lightning, where your code imports that)",
        name="lightning",
    )
