"""How far something is, as events: the library itself prints nothing (G10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["OnProgress", "Progress"]


@dataclass(frozen=True)
class Progress:
    """One event.

    Attributes:
        action: what is done: ``copy``, ``verify``, ``convert``.
        name: the file that it is done to.
        done: bytes so far, over all files.
        total: bytes in all.
    """

    action: str
    name: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]
