"""What memory, S3 and every other fsspec filesystem share: files are keys below a root."""

from __future__ import annotations

from collections.abc import Iterable

from ckptstore.errors import CorruptionError, NotFoundError, StorageError, UnsafeError
from ckptstore.storage.base import AlreadyThereError, Entry, Listing, Storage
from ckptstore.storage.names import checked

__all__ = ["KeyedStorage"]


class KeyedStorage(Storage):
    """A storage whose files have keys, which are the root, ``/`` and the name.

    Args:
        location: for people, without credentials.
        root: what all keys start with; ``""`` for no root.
    """

    def __init__(self, location: str, root: str) -> None:
        _sendable(location)
        self.location = location
        self._root = root

    def flush(self, folder: str) -> None:
        """Do nothing: what such a storage has acknowledged is as durable as it gets."""

    def _key(self, name: str) -> str:
        _sendable(checked(name))
        return f"{self._root}/{name}" if self._root else name

    def _inside(self, folder: str) -> str:
        """Return what the keys of all that is in a folder start with."""
        _sendable(checked(folder, folder=True))
        parts = [part for part in (self._root, folder) if part]
        return "/".join(parts) + "/" if parts else ""

    def _look_first(self, name: str) -> None:
        """Refuse a name that is taken, where the service itself would not."""
        if self.entry(name) is not None:
            raise self._taken(name)

    @staticmethod
    def _listing(files: Iterable[tuple[str, Entry]], folders: Iterable[str]) -> Listing:
        # A key that ends in a slash stands for a folder in some tools' eyes, and names nothing.
        return Listing(
            {name: entry for name, entry in sorted(files) if name},
            tuple(sorted({name for name in folders if name})),
        )

    def _taken(self, name: str) -> AlreadyThereError:
        return AlreadyThereError(f"{self._said(name)} is already there; nothing was written")

    def _absent(self, name: str) -> NotFoundError:
        return NotFoundError(f"there is no {self._said(name)}")

    def _short(self, name: str, size: int, wanted: int) -> CorruptionError:
        return CorruptionError(
            f"{self._said(name)} ends after {size} bytes, where {wanted} were expected; "
            "restore it from a good copy"
        )

    def _no_folder(self, folder: str) -> StorageError:
        return StorageError(f"cannot list {self._said(folder)}: it is a file, not a folder")

    def _said(self, name: str) -> str:
        return f"{name!r} in {self.location}" if name else self.location


def _sendable(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UnsafeError(
            f"{name!r} holds a character that no name can have; not followed"
        ) from error
