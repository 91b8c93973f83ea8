"""A file object whose bytes are proved before they are handed out (G4)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ckptstore.commit.pages import populate
from ckptstore.commit.seekable import Seekable
from ckptstore.commit.spans import Span, spans
from ckptstore.digests import ALGORITHM, Digest, checksum
from ckptstore.errors import CkptstoreError, UnsupportedError
from ckptstore.storage.base import RangeReader

__all__ = ["BlockFile", "open_plain", "open_proved"]

# What is read at once straight into the caller's memory. It bounds nothing but the time until
# damage is found.
_SPAN = 64 * 2**20
_PLAIN_BLOCK = 64 * 2**10
_KEPT_BLOCKS = 4
_MOST_MEMORY = 128 * 2**20  # of all threads together
_FAST = 100e6  # Bytes a second of one read.
_T = TypeVar("_T")

Fault = Callable[[str], CkptstoreError]
Check = Callable[[int, Sequence[memoryview]], None]  # of a block's number, and its bytes in order


class BlockFile(Seekable):
    """A file of a storage, read in blocks; each block passes a check before it is seen.

    Whole blocks land straight in the caller's memory; parts of blocks come from the last few
    that were read, so that the many small reads of a zip directory cost one request.
    """

    def __init__(
        self,
        reader: RangeReader,
        *,
        block_size: int,
        check: Check | None,
    ) -> None:
        super().__init__()
        self._reader = reader
        self._block_size = block_size
        self._check = check
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        self._most_kept = _KEPT_BLOCKS
        self._at_once = reader.at_once
        self._most_at_once = max(reader.at_once, reader.at_most)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._reader.size

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill the buffer as far as the file goes, and return how many bytes that is."""
        target = memoryview(buffer).cast("B")
        target = target[: max(0, min(len(target), self.size - self._at))]
        done = 0
        while done < len(target):
            done += self._read_some(target[done:])
        return done

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes, or all that are left."""
        left = max(0, self.size - self._at)
        buffer = bytearray(left if size is None or size < 0 else min(size, left))
        self.readinto(buffer)
        return bytes(buffer)

    def fill(self, pieces: Iterable[tuple[int, memoryview]]) -> None:
        """Fill many pieces of memory, several at once; each byte is read once.

        Every block that they touch has passed its check when this returns. Where one does not,
        what the pieces hold is undefined.

        Args:
            pieces: the place in the file and the memory of each; they do not overlap.
        """
        self._all(
            self._read_span,
            spans(
                pieces,
                size=self.size,
                block=self._reader.read_size if self._check is None else self._block_size,
                whole=self._check is not None,
                most=self._reader.read_size,
            ),
        )

    def prove(self) -> None:
        """Read every block and check it, several at once, in memory that is used again."""
        own = threading.local()

        def one(start: int) -> None:
            count = min(self._block_size, self.size - start)
            if not hasattr(own, "memory"):
                own.memory = memoryview(bytearray(count))
            memory = own.memory[:count] if len(own.memory) >= count else bytearray(count)
            self._read_span(Span(start, start + count, [(start, memoryview(memory))]))

        self._all(one, range(0, self.size, self._block_size))

    def keep(self, count: int) -> None:
        """Keep that many blocks of those that were read in part; one is enough from end to end."""
        self._most_kept = count

    def map(self) -> memoryview | None:
        """Return the file's bytes as memory, unchecked; None where the storage cannot map it."""
        return self._reader.map()

    def interrupt(self) -> None:
        """Make the reads fail that are under way in other threads."""
        self._reader.interrupt()

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            self._kept.clear()
            self._reader.close()
        super().close()

    def _all(self, work: Callable[[_T], None], items: Sequence[_T]) -> None:
        """Do all of some work, as much of it at once as the storage is good for."""
        threads = min(self._most_at_once, len(items), _MOST_MEMORY // self._block_size)
        if threads < 2:
            for item in items:
                work(item)
            return
        with ThreadPoolExecutor(threads, "ckptstore-read") as pool:
            under_way: set[Future[None]] = set()
            try:
                for item in items:
                    under_way.add(pool.submit(work, item))
                    if len(under_way) >= min(self._at_once, threads):
                        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                        for one in done:
                            one.result()
                for one in under_way:
                    one.result()
            except BaseException as error:
                if not isinstance(error, Exception):
                    self._reader.interrupt()  # Who presses Ctrl-C does not wait for a server.
                raise

    def _read_span(self, span: Span) -> None:
        targets = span.targets()
        for memory in targets:
            populate(memory)
        began = time.monotonic()
        self._reader.readinto_parts(span.start, targets)
        if span.end - span.start < _FAST * (time.monotonic() - began):
            # Where one is slow, more of them carry more.
            self._at_once = min(2 * self._at_once, self._most_at_once)
        if self._check is not None:
            number = span.start // self._block_size
            for block in _blocks(targets, self._block_size):
                self._check(number, block)
                number += 1

    def _read_some(self, target: memoryview) -> int:
        index, within = divmod(self._at, self._block_size)
        whole = 0
        if within == 0 or self._check is None:
            whole = self._whole_blocks(len(target))
        if whole:
            part = target[:whole]
            self._reader.readinto(self._at, part)
            self._check_blocks(index, part)
        else:
            block = self._block(index)[within:]
            part = target[: len(block)]
            part[:] = block[: len(part)]
        self._at += len(part)
        return len(part)

    def _whole_blocks(self, wanted: int) -> int:
        wanted = min(wanted, max(_SPAN, self._block_size))
        if self._check is None and wanted > self._block_size:
            return wanted  # One request, wherever it begins.
        if self._at + wanted == self.size:
            return wanted
        return wanted - wanted % self._block_size

    def _block(self, index: int) -> memoryview:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        start = index * self._block_size
        block = memoryview(bytearray(min(self._block_size, self.size - start)))
        self._reader.readinto(start, block)
        self._check_blocks(index, block)
        self._kept[index] = block
        while len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)
        return self._kept[index]

    def _check_blocks(self, first: int, data: memoryview) -> None:
        if self._check is not None:
            for number, block in enumerate(_blocks([data], self._block_size), first):
                self._check(number, block)


def _blocks(parts: Sequence[memoryview], size: int) -> Iterator[list[memoryview]]:
    """Return consecutive bytes by blocks, the first of which begins with the first byte."""
    block: list[memoryview] = []
    room = size
    for part in parts:
        while part:
            block.append(part[:room])
            part = part[len(block[-1]) :]
            room -= len(block[-1])
            if not room:
                yield block
                block, room = [], size
    if block:
        yield block


def open_plain(reader: RangeReader) -> BlockFile:
    """Return a file object over bytes that nothing is known of."""
    return BlockFile(reader, block_size=_PLAIN_BLOCK, check=None)


def open_proved(reader: RangeReader, digest: Digest, fault: Fault) -> BlockFile:
    """Return a file object that hands out only bytes whose chunk checksum is the digest's.

    Args:
        reader: the bytes.
        digest: what they have to be.
        fault: makes the error to raise of a sentence about what was found.

    Raises:
        CorruptionError: what ``fault`` makes where the size differs.
        UnsupportedError: the checksums are of an algorithm that this version does not have.
    """
    if digest.algorithm != ALGORITHM:
        raise UnsupportedError(
            f"its chunks are proved by {digest.algorithm!r}, this ckptstore knows {ALGORITHM!r}; "
            "install a newer ckptstore"
        )
    if reader.size != digest.size:
        raise fault(f"it has {reader.size} bytes, the manifest says {digest.size}")

    def check(index: int, parts: Sequence[memoryview]) -> None:
        found = checksum(*parts)
        if found != digest.checksums[index]:
            raise fault(
                f"chunk {index} is {digest.algorithm}:{found}, "
                f"the manifest says {digest.algorithm}:{digest.checksums[index]}"
            )

    return BlockFile(reader, block_size=digest.chunk_size, check=check)
