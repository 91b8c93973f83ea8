"""What storages speak of: files, unfinished uploads, where bytes are, outcomes of a write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ckptstore.errors import ConflictError, StorageError, SupersededError

if TYPE_CHECKING:
    from ckptstore.storage.base import Storage

__all__ = [
    "AlreadyThereError",
    "Elsewhere",
    "Entry",
    "Held",
    "Listing",
    "Unfinished",
    "UnknownOutcomeError",
    "worth_keeping",
]


class AlreadyThereError(ConflictError):
    """The name to be created exists; nothing was written."""


class UnknownOutcomeError(StorageError):
    """The reply was lost: the write may have happened, or may still."""


def worth_keeping(error: BaseException) -> bool:
    """Whether what was stored until a failure is as good as before.

    So it is where the way failed, where a person interrupted it, and where what was copied was
    replaced meanwhile: much of what came after may be the same.
    """
    return isinstance(error, StorageError | SupersededError) or not isinstance(error, Exception)


@dataclass(frozen=True)
class Entry:
    """One file as a listing shows it.

    Attributes:
        name: relative to the storage.
        size: bytes.
        modified: when its bytes or its names last changed, in seconds since 1970 by the clock of
            the storage, which need not be this machine's; 0.0 where the storage does not say.
        version: changes whenever the file is replaced (inode and size, ETag); None where the
            storage has no such thing.
    """

    name: str
    size: int
    modified: float
    version: str | None


@dataclass(frozen=True)
class Listing:
    """The files and the subfolders directly in a folder, by their names in it."""

    files: dict[str, Entry]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Unfinished:
    """An upload that was begun, and neither finished nor given up: bytes that nobody sees.

    Attributes:
        name: of the file that it would become, relative to the storage.
        upload: what the service knows it by.
        age: seconds since it was begun, by the service's own clock; None where the dates that
            the service gives cannot be believed.
    """

    name: str
    upload: str
    age: float | None


@dataclass(frozen=True)
class Held:
    """Where a storage has some bytes already.

    Attributes:
        name: of the file, relative to the storage; one that is never changed.
        start: of the bytes in it.
        storage: which, where it is another one of the same service; see `Storage.beside`.
    """

    name: str
    start: int
    storage: Storage | None = None


@dataclass(frozen=True)
class Elsewhere:
    """How another process of this machine reaches the same storage.

    Attributes:
        location: for `ckptstore.storage.connect`.
        options: for the same; secrets among them.
    """

    location: str | os.PathLike[str]
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
