"""Bytes under names below one location: the only floor that knows fsspec.

`locate` and `connect` turn a path or URL into a `Storage`; `ckptstore.storage.base` says what
every storage promises.
"""

from ckptstore.storage.base import (
    AlreadyThereError,
    Entry,
    Held,
    Listing,
    RangeReader,
    Sink,
    Storage,
    UnknownOutcomeError,
)
from ckptstore.storage.location import connect, locate

__all__ = [
    "AlreadyThereError",
    "Entry",
    "Held",
    "Listing",
    "RangeReader",
    "Sink",
    "Storage",
    "UnknownOutcomeError",
    "connect",
    "locate",
]
