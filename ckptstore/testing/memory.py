"""Files of one checkpoint in memory: what a format reads from and writes to in its tests."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

import pytest

from ckptstore.errors import ConflictError, CorruptionError, NotFoundError
from ckptstore.formats.base import Files, NewFiles
from ckptstore.manifest import plain_name
from ckptstore.storage.base import Sink

__all__ = ["InMemory", "MemoryFiles", "MemoryNewFiles"]


class MemoryFiles(Files):
    """Files that never had a manifest.

    Args:
        data: the bytes of each file by its plain name; copied.
        location: for people.
        named: the one file that the location names; None where it names a folder.
    """

    def __init__(
        self,
        data: Mapping[str, bytes] | None = None,
        location: str = "memory",
        *,
        named: str | None = None,
    ) -> None:
        self.location = location
        self.named = named
        self.manifest = None
        self.data = dict(data or {})

    def names(self) -> tuple[str, ...]:
        """Return the names, sorted."""
        return tuple(sorted(self.data))

    def text(self, name: str) -> str:
        """Return a file's bytes as UTF-8.

        Raises:
            NotFoundError: there is no such file.
            CorruptionError: it is not UTF-8.
        """
        try:
            return self._bytes(name).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorruptionError(f"{name} in {self.location} is not UTF-8: {error}") from error

    def size(self, name: str) -> int:
        """Return a file's size in bytes.

        Raises:
            NotFoundError: there is no such file.
        """
        return len(self._bytes(name))

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading at any place.

        Raises:
            NotFoundError: there is no such file.
        """
        return io.BytesIO(self._bytes(name))

    def _bytes(self, name: str) -> bytes:
        if name not in self.data:
            raise NotFoundError(
                f"there is no {name} in {self.location}; there are: {', '.join(self.names())}"
            )
        return self.data[name]


class MemoryNewFiles(NewFiles):
    """A write into memory; `written` gives what was finished, as files to read."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def write_text(self, name: str, text: str) -> None:
        """Add a JSON file.

        Raises:
            ConflictError: the name was written before.
            UnsafeError: it is no plain file name.
        """
        self._claim(name)
        self._data[name] = text.encode()

    @contextmanager
    def create(self, name: str, *, expected_size: int = 0) -> Iterator[Sink]:
        """Add a file of bytes; an exception in the block leaves nothing of it.

        Raises:
            ConflictError: the name was written before.
            UnsafeError: it is no plain file name.
        """
        self._claim(name)
        sink = _MemorySink()
        yield sink
        self._data[name] = bytes(sink.data)

    def written(self) -> MemoryFiles:
        """Return the finished files."""
        return MemoryFiles(self._data)

    def _claim(self, name: str) -> None:
        plain_name(name, "the format")
        if name in self._data:
            raise ConflictError(f"{name} is written twice; a format writes each file once")


class InMemory:
    """A part of the kits: somewhere to save checkpoints."""

    @pytest.fixture
    def memory_location(self) -> Iterator[str]:
        """Give an empty location in memory; what is left there goes at the end."""
        from fsspec.implementations.memory import MemoryFileSystem

        root = f"/kit-{uuid.uuid4().hex}"
        yield f"memory:/{root}"
        for key in [key for key in MemoryFileSystem.store if key.startswith(f"{root}/")]:
            del MemoryFileSystem.store[key]
        kept = [path for path in MemoryFileSystem.pseudo_dirs if not path.startswith(root)]
        MemoryFileSystem.pseudo_dirs[:] = kept


class _MemorySink(Sink):
    """Copies what it is given at once, as the real ones may."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: memoryview, /) -> None:
        self.data += memoryview(data).cast("B")
