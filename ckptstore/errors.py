"""Every error that ckptstore raises, grouped by what the reader does next.

CkptstoreError                 exit code 1
├── NotFoundError              3  look elsewhere          (also FileNotFoundError)
├── ConflictError              6  look at what is there   (also FileExistsError)
│   └── SupersededError        6  open again
├── CorruptionError            4  fetch a good copy
├── UnsafeError                5  do not trust the file
├── UnsupportedError           1  install or convert something
├── StorageError               1  mend the storage, try again   (also OSError)
└── PluginError                1  mend or leave out the plugin
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CkptstoreError",
    "ConflictError",
    "CorruptionError",
    "NotFoundError",
    "PluginError",
    "StorageError",
    "SupersededError",
    "UnsafeError",
    "UnsupportedError",
]


_LONGEST = 4000


class CkptstoreError(Exception):
    """The base of all errors of ckptstore.

    As text it is at most 4,000 characters long, for it may quote what a stranger wrote.

    Attributes:
        committed: after a failed write, whether it was committed all the same: False, True,
            or None where the storage never answered and the request may still land.
        denied: whether a storage refused because of who asks: trying again does not help, other
            credentials or permissions do.
        exit_code: what the command line exits with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "", *, committed: bool | None = False) -> None:
        super().__init__(message)
        self.committed = committed
        self.denied = False

    def __str__(self) -> str:
        text = str(self.args[0]) if self.args else ""
        if len(text) <= _LONGEST:
            return text
        # What is wrong stands at the beginning, what to do about it at the end.
        return f"{text[: _LONGEST * 3 // 4]} … {text[-_LONGEST // 4 + 3 :]}"


class NotFoundError(CkptstoreError, FileNotFoundError):
    """There is no such location, bucket, checkpoint, step or file."""

    exit_code = 3


class ConflictError(CkptstoreError, FileExistsError):
    """Something else is there already: another writer's commit, or a person's own file."""

    exit_code = 6


class SupersededError(ConflictError):
    """The state that this handle shows was replaced and removed; open the location again."""


class CorruptionError(CkptstoreError):
    """The bytes are not the ones that were committed, or are no checkpoint at all."""

    exit_code = 4


class UnsafeError(CkptstoreError):
    """Reading on would run code, or lead outside the location; nothing was run."""

    exit_code = 5


class UnsupportedError(CkptstoreError):
    """This format, tokenizer kind, storage or operation is not available here."""


class StorageError(CkptstoreError, OSError):
    """The storage failed: unreachable, access denied, full, or it answered nonsense."""


class PluginError(CkptstoreError):
    """A plugin broke its promise, or two plugins claim one name."""
