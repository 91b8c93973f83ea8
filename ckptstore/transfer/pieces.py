"""The bytes of one file on their way: read ahead, proved, and in order or when asked for."""

from __future__ import annotations

import logging
import mmap
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import cast

from ckptstore.commit.proved import BlockFile
from ckptstore.errors import CorruptionError
from ckptstore.formats.base import Files
from ckptstore.transfer.nearby import Nearby

__all__ = ["Pieces", "in_order"]

log = logging.getLogger(__name__)

_FIRST_AT_ONCE = 2
_MOST_AT_ONCE = 4
"""Pieces of a chunk each that wait in memory, which is 32 MiB."""


class Pieces:
    """One file of the source, from where each chunk is nearest.

    A context manager, within which any thread may read.

    Args:
        files: of the source.
        name: of the file.
        size: bytes.
        near: what the destination has of it, nearest first.
        spared: is told of bytes that did not come from afar.
    """

    def __init__(
        self,
        files: Files,
        name: str,
        size: int,
        near: Sequence[Nearby],
        spared: Callable[[int], None],
    ) -> None:
        self._files = files
        self._name = name
        self._size = size
        self._near = near
        self._stack = ExitStack()
        self._spared = spared
        self._lock = threading.Lock()
        self._far: BlockFile | None = None

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def open(self) -> None:
        """Open the file itself, in the thread that an interrupt reaches."""
        self._source()

    def stop(self) -> None:
        """Make the reads fail that are under way: nobody waits for what they bring."""
        if self._far is not None:
            self._far.interrupt()

    def read(self, start: int, size: int, chunk: int | None = None) -> memoryview:
        """Return some bytes, proved.

        Args:
            start: of the first one.
            size: how many.
            chunk: its number, where it is one.

        Raises:
            CorruptionError: the file is shorter than it was said to be, or damaged.
        """
        # From the system itself, which has it back at once: what a thread frees, malloc keeps.
        data = memoryview(mmap.mmap(-1, size))
        if chunk is not None and any(near.read(chunk, data) for near in self._near):
            self._spared(size)
            return data
        source = self._source()
        try:
            source.fill([(start, data)])
        except CorruptionError as error:
            # On its way a bit may have flipped; what is damaged where it lies stays so.
            log.info("%s is read once more: %s", self._name, error)
            source.fill([(start, data)])
        return data

    def _source(self) -> BlockFile:
        """Return the file itself, opened when it is first needed."""
        with self._lock:
            if self._far is None:
                self._far = cast(BlockFile, self._stack.enter_context(self._files.open(self._name)))
            if self._far.size != self._size:
                raise CorruptionError(
                    f"{self._name} in {self._files.location} has {self._far.size} bytes, where "
                    f"{self._size} were expected; nothing was committed, copy again"
                )
            return self._far


def in_order(
    read: Callable[[int], memoryview], count: int, stop: Callable[[], None]
) -> Generator[memoryview, None, None]:
    """Yield pieces in their order, while the next are being read by threads.

    Two at once, and more where they come slower than they are taken. Close it when it is left
    early: then no thread reads any more.

    Args:
        read: returns a piece by its number.
        count: how many there are.
        stop: makes the reads fail that are under way.
    """
    waiting: deque[Future[memoryview]] = deque()
    at_once, begun = _FIRST_AT_ONCE, 0
    with ThreadPoolExecutor(_MOST_AT_ONCE, "ckptstore-ahead") as pool:
        try:
            while begun < count or waiting:
                while begun < count and len(waiting) < at_once:
                    waiting.append(pool.submit(read, begun))
                    begun += 1
                first = waiting.popleft()
                if not first.done():
                    at_once = min(at_once + 1, _MOST_AT_ONCE)
                yield first.result()
        except BaseException:
            for future in waiting:
                future.cancel()
            stop()
            raise
