"""This process's memory, in the store that all of fsspec's ``memory://`` shares.

fsspec hands one buffer to all readers and shows files while they are written. So every operation
here puts or takes a whole file, under one lock of the process.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptstore.errors import StorageError
from ckptstore.storage.base import Entry, Listing, RangeReader, Sink
from ckptstore.storage.general import GeneralStorage

__all__ = ["MemoryStorage"]

_LOCK = threading.RLock()


class MemoryStorage(GeneralStorage):
    """The files below a ``memory://`` URL; several writers in the process are safe.

    Args:
        root: the URL's part behind ``memory://``.
    """

    taking_over = "proof"
    lists_in_order = True

    def __init__(self, root: str) -> None:
        super().__init__("memory", f"memory://{root.strip('/')}", {})

    def list(self, folder: str = "") -> Listing:
        """See `Storage.list`."""
        with _LOCK:
            return super().list(folder)

    def holding(self, folder: str, prefix: str, name: str) -> tuple[str, ...]:
        """See `Storage.holding`."""
        with _LOCK:
            return super().holding(folder, prefix, name)

    def held(self, folder: str, prefix: str, names: Sequence[str]) -> dict[str, dict[str, Entry]]:
        """See `Storage.held`."""
        with _LOCK:
            return super().held(folder, prefix, names)

    def entry(self, name: str) -> Entry | None:
        """See `Storage.entry`."""
        with _LOCK:
            return super().entry(name)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """See `Storage.read`."""
        with _LOCK:
            return super().read(name, limit)

    def open(self, name: str) -> RangeReader:
        """See `Storage.open`; what was opened stays readable after it is replaced."""
        with _LOCK:
            if self.entry(name) is None:
                raise self._absent(name)
            return _Reader(self, name, self._fs.store[self._key(name)])

    def create_only(self, name: str, data: bytes) -> bool:
        """Return True: the lock is the service."""
        return True

    def create(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.create`."""
        with _LOCK:
            if self._fs.exists(self._key(name)):
                raise self._taken(name)
            self.replace(name, data)

    @contextlib.contextmanager
    def writer(
        self,
        name: str,
        *,
        expected_size: int = 0,
        durable: bool = True,
        resident: bool = True,
        lasting: bool = False,
    ) -> Iterator[Sink]:
        """See `Storage.writer`; the file appears when it is finished."""
        self._look_first(name)
        sink = _Sink()
        yield sink
        # The store keeps the buffer's own bytes: no second copy is made here.
        self.create(name, sink.buffer.getvalue())

    def replace(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """See `Storage.replace`."""
        with _LOCK:
            parts = name.split("/")
            for depth in range(1, len(parts)):
                if self.entry("/".join(parts[:depth])) is not None:
                    raise StorageError(
                        f"cannot write {self._said(name)}: a part of this name is a file"
                    )
            super().replace(name, data)

    def swap(self, name: str, expected: bytes, data: bytes, *, durable: bool = True) -> bool:
        """See `Storage.swap`."""
        with _LOCK:
            if self.entry(name) is None or self.read(name) != expected:
                return False
            self.replace(name, data)
            return True

    def copy(self, source: str, name: str, *, durable: bool = True, only_new: bool = False) -> None:
        """See `Storage.copy`; both share their bytes, which never change."""
        with _LOCK:
            if self.entry(source) is None:
                raise self._absent(source)
            if only_new:
                self._look_first(name)
            self.replace(name, self._fs.store[self._key(source)].getvalue())

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        with _LOCK:
            super().delete(name)

    def _inside(self, folder: str) -> str:
        return f"/{super()._inside(folder).lstrip('/')}"

    def _key(self, name: str) -> str:
        return f"/{super()._key(name).lstrip('/')}"

    def _as_entry(self, name: str, row: Mapping[str, Any]) -> Entry:
        held = self._fs.store[self._key(name)]
        made = held.created.timestamp()
        size = int(row["size"])
        return Entry(name, size, made, f"{id(held):x}-{made}-{size}")


class _Sink(Sink):
    def __init__(self) -> None:
        self.buffer = io.BytesIO()

    def write(self, data: memoryview, /) -> None:
        self.buffer.write(data)


class _Reader(RangeReader):
    def __init__(self, storage: MemoryStorage, name: str, held: io.BytesIO) -> None:
        self._storage = storage
        self._name = name
        self._held = held
        with held.getbuffer() as view:
            self.size = len(view)

    def readinto(self, start: int, target: memoryview) -> None:
        part = target.cast("B")
        if start + len(part) > self.size:
            raise self._storage._short(self._name, self.size, start + len(part))
        with _LOCK, self._held.getbuffer() as view:
            part[:] = view[start : start + len(part)]
