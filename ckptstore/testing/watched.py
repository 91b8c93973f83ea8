"""Files that count what is read of them, fail where they are told to, and tell who leaves them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from ckptstore.formats.base import Files, NewFiles
from ckptstore.storage.base import Sink
from ckptstore.testing.memory import MemoryFiles

__all__ = ["FullDisk", "WatchedFiles"]


class WatchedFiles(Files):
    """Files in memory that say what is asked of them.

    Args:
        files: what they hold.
        before: called with the number of each text, size, opening and read, from 1; may raise.
        stand_in: the file whose bytes any name gets that is not there, so that whoever follows it
            is not stopped by the absence of what it leads to.

    Attributes:
        read: bytes that were read of what was opened.
        asked: how many times something was asked.
        strange: names that were asked for and are not there.
    """

    def __init__(
        self,
        files: MemoryFiles,
        *,
        before: Callable[[int], None] | None = None,
        stand_in: str | None = None,
    ) -> None:
        self.location, self.named, self.manifest = files.location, files.named, files.manifest
        self.read = self.asked = 0
        self.strange: list[str] = []
        self._files = files
        self._before = before
        self._stand_in = stand_in

    def names(self) -> tuple[str, ...]:
        """See `Files.names`."""
        return self._files.names()

    def text(self, name: str) -> str:
        """See `Files.text`."""
        self.ask()
        return self._files.text(self._known(name))

    def size(self, name: str) -> int:
        """See `Files.size`."""
        self.ask()
        return self._files.size(self._known(name))

    def open(self, name: str) -> BinaryIO:
        """See `Files.open`."""
        self.ask()
        return cast(BinaryIO, _WatchedFile(self, self._files.open(self._known(name))))

    def beside(self, name: str) -> BinaryIO | None:
        """See `Files.beside`."""
        return self._files.beside(name)

    def ask(self, nbytes: int = 0) -> None:
        """Count one more thing that is asked."""
        self.asked += 1
        self.read += nbytes
        if self._before is not None:
            self._before(self.asked)

    def _known(self, name: str) -> str:
        if name in self._files.names() or self._stand_in is None:
            return name
        self.strange.append(name)
        return self._stand_in


class _WatchedFile(io.RawIOBase):
    def __init__(self, files: WatchedFiles, file: BinaryIO) -> None:
        super().__init__()
        self._files = files
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self._file.read(len(memoryview(buffer).cast("B")))
        self._files.ask(len(data))
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)


class FullDisk(NewFiles):
    """A write that fails once, at one byte of it or where a file is ended, and takes all the rest.

    Whoever misses the failure therefore ends with files that are not what they should be.

    Args:
        at: the number of the byte that fails, from 0, over all files in the order of writing; the
            end of a file counts as one more byte.

    Attributes:
        taken: bytes and ends of files that were taken so far.
        failed: whether it has failed.
        ends: where each piece that was written began and ended, counted like that.
    """

    def __init__(self, at: int | None = None) -> None:
        self.taken = 0
        self.failed = False
        self.ends: list[tuple[int, int]] = []
        self._at = at

    def write_text(self, name: str, text: str) -> None:
        """Take a JSON file, or fail in it."""
        self.take(len(text.encode()) + 1)

    @contextmanager
    def create(self, name: str, *, expected_size: int = 0) -> Iterator[Sink]:
        """Take a file of bytes, or fail in it."""
        yield _FullSink(self)
        self.take(1)

    def take(self, count: int) -> None:
        """Take bytes.

        Raises:
            OSError: the one that fails is among them.
        """
        begin, self.taken = self.taken, self.taken + count
        self.ends.append((begin, self.taken))
        if self._at is not None and begin <= self._at < self.taken:
            self.failed = True
            raise OSError(28, "no space left on device")


class _FullSink(Sink):
    def __init__(self, disk: FullDisk) -> None:
        self._disk = disk

    def write(self, data: memoryview, /) -> None:
        self._disk.take(memoryview(data).nbytes)
