"""The two ends of a file that passed: enough to read a zip's directory without asking for it.

What was written is looked through before it is committed. Its index lies at its ends, and these
have just been in this process: to read them back would cost several requests, and whole chunks.
"""

from __future__ import annotations

from collections import deque

from ckptstore.commit.seekable import Seekable

__all__ = ["Ends", "NotKeptError"]

_KEPT = 2**20


class NotKeptError(Exception):
    """What is read did not lie at an end; it has to be read from the storage."""


class Ends(Seekable):
    """A file object over the first and the last MiB of what passed.

    Views of memory that stays are kept as they are, so that nothing is copied.
    """

    def __init__(self) -> None:
        super().__init__()
        self._size = 0
        self._first: list[memoryview] = []
        self._last: deque[memoryview] = deque()
        self._kept = 0

    @property
    def size(self) -> int:
        """Bytes that passed."""
        return self._size

    def take(self, data: memoryview, *, stays: bool) -> None:
        """Note the next bytes."""
        if self._size < _KEPT:
            part = data[: _KEPT - self._size]
            self._first.append(part if stays else memoryview(bytes(part)))
        part = data[-_KEPT:]
        self._last.append(part if stays else memoryview(bytes(part)))
        self._kept += len(part)
        while self._kept - len(self._last[0]) >= _KEPT:
            self._kept -= len(self._last.popleft())
        self._size += len(data)

    def again(self) -> Ends:
        """Return the same, to be read from the start by somebody who may close it."""
        other = Ends()
        other._size, other._kept = self._size, self._kept
        other._first, other._last = self._first, self._last
        return other

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes, or all that are left.

        Raises:
            NotKeptError: they are not all at an end.
        """
        left = max(0, self._size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        first, last = min(_KEPT, self._size), self._size - self._kept
        if self._at + count <= first:
            data = b"".join(self._first)[self._at : self._at + count]
        elif self._at >= last:
            data = b"".join(self._last)[self._at - last : self._at - last + count]
        else:
            raise NotKeptError
        self._at += count
        return data
