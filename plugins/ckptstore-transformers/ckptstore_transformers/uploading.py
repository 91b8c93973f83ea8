"""A folder that the Trainer wrote, into a store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptstore import Checkpoint, Keep, Store
from ckptstore_transformers.folder import contents_of

__all__ = ["upload"]


def upload(
    folder: str | os.PathLike[str],
    location: str | os.PathLike[str],
    *,
    keep: Keep | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Put a ``checkpoint-N`` that is there already into the history at a location, as step N.

    Guarantee: whole or absent (G2), durable (G3).

    Args:
        folder: the checkpoint's; it stays as it is.
        location: path or URL.
        keep: which steps stay; all by default.
        storage_options: what fsspec's filesystem takes.

    Returns:
        A handle on what was committed.

    Raises:
        NotFoundError: it is no checkpoint of the Trainer's.
        UnsupportedError: it is sharded by FSDP or DeepSpeed.
        ConflictError: the step is there with other content.
    """
    with Store(location, keep=keep or Keep(), storage_options=storage_options) as store:
        return store.save(**contents_of(Path(folder)))
