"""The folders below a location, for commands that look at many checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

__all__ = ["all_below", "directly_below"]


def directly_below(location: str, storage_options: dict[str, Any] | None) -> Iterator[str]:
    """Yield the locations of the folders directly below one, sorted."""
    from ckptstore import storage
    from ckptstore.tiers.journal import JOURNAL

    for name in storage.connect(location, storage_options).list().folders:
        if name != JOURNAL:
            yield _child(location, name)


def all_below(location: str, storage_options: dict[str, Any] | None) -> Iterator[str]:
    """Yield a location and those of all folders below it, each before what is in it.

    What ckptstore keeps in a checkpoint (generations, steps, its journal) is left out. Links to
    folders are not walked into, as they may lead back up.
    """
    from ckptstore import storage
    from ckptstore.commit.layout import GENERATIONS, STEP
    from ckptstore.tiers.journal import JOURNAL

    place = storage.connect(location, storage_options)
    todo = [""]
    while todo:
        folder = todo.pop()
        yield _child(location, folder)
        inside = f"{folder}/" if folder else ""
        todo += [
            inside + name
            for name in reversed(place.list(folder).folders)
            if name not in (GENERATIONS, JOURNAL)
            and not name.startswith(STEP)
            and not os.path.islink(_child(place.location, inside + name))
        ]


def _child(location: str, name: str) -> str:
    return f"{location.rstrip('/')}/{name}" if name else location
