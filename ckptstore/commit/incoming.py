"""A file that comes in: digested as it passes, and stored unless its bytes are there already.

Rule 1: each byte is touched once, by the caller's thread for its chunk's checksum, by a second
thread for the SHA-256 (or by the same one, where it must not take two cores), by the storage for
its way. Rule 2: as long as every chunk is the one that
the forerunner's file has at its place, nothing is stored: what is lent stays as it is, so it can
still be stored once a chunk differs. From then on the storage is told of each chunk that is the
same, and may copy it by itself. Rule 3: where what is lent costs memory that the lender would
not need otherwise, little of it is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from ckptstore.commit.ends import Ends
from ckptstore.digests import ALGORITHM, Chunks, Digest, chunk_size_for
from ckptstore.storage.base import Held, Sink

__all__ = ["Incoming", "Known"]

_COPIED = 64 * 2**10
_BATCH = 2**20
_MOST_KEPT = 32 * 2**20


@dataclass(frozen=True)
class Known:
    """The forerunner of a file that comes in.

    Attributes:
        name: of its bytes, relative to the storage.
        digest: of its bytes.
    """

    name: str
    digest: Digest


class Incoming(Sink):
    """Takes the bytes of one new file.

    Args:
        start: opens the file in the storage; called once, when there is something to store.
        expected_size: bytes, for the size of chunks.
        known: the file whose bytes may be the same.
        resident: whether what is lent is in memory anyhow, as a model's tensors are; otherwise
            little of it is kept.
        parallel: whether a thread of its own may compute the SHA-256.

    Attributes:
        ends: the first and the last of what came, as a file.
    """

    def __init__(
        self,
        start: Callable[[], Sink | None],
        expected_size: int,
        known: Known | None = None,
        *,
        resident: bool = True,
        parallel: bool = True,
    ) -> None:
        self._start = start
        self._chunks = Chunks(chunk_size_for(expected_size))
        self._sha256 = _Sha256(most=None if resident else _MOST_KEPT, parallel=parallel)
        self._known = known if known is not None and self._comparable(known.digest) else None
        self._same = self._known is not None and resident
        self._kept: list[tuple[memoryview, Held | None]] = []
        self._chunk: list[memoryview] = []
        self._sink: Sink | None = None
        self.ends = Ends()
        if not self._same:
            self._open()

    def write(self, data: memoryview, /) -> int:
        """Take the next bytes, which may be reused as soon as this returns."""
        view = memoryview(data).cast("B")
        if len(view) <= _COPIED:
            return self.lend(memoryview(bytes(view)))
        self._let_go()
        self.ends.take(view, stays=False)
        self._chunks.update(view)
        self._sha256.update(view)
        if self._sink is not None:
            self._sink.write(view)
        self._sha256.wait()
        return len(view)

    def lend(self, data: memoryview, /, held: Held | None = None) -> int:
        """Take the next bytes, which stay as they are until the write is committed."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        if size:
            self.ends.take(rest, stays=True)
        while rest and self._known is not None:
            part = rest[: self._chunks.room]
            self._chunk.append(part)
            self._chunks.update(part)
            if self._chunks.room == self._chunks.size:
                self._end_chunk()
            rest = rest[len(part) :]
        if rest:
            self._chunks.update(rest)
            self._pass_on(rest, held)
        return size

    @property
    def waiting(self) -> int:  # type: ignore[override]
        """See `Sink`."""
        return 0 if self._sink is None else self._sink.waiting

    @property
    def spared(self) -> int:  # type: ignore[override]
        """See `Sink`."""
        return 0 if self._sink is None else self._sink.spared

    @property
    def unchanged(self) -> bool:
        """Whether all that came is what the known file holds, so that nothing of it was stored."""
        if not self._same or self._known is None:
            return False
        return self.chunked() == replace(self._known.digest, sha256="")

    def finish(self) -> None:
        """Store what is still kept; the file ends here."""
        self._let_go()

    def chunked(self) -> Digest:
        """Return the digest of all that came, but for the SHA-256, which may take longer."""
        return self._chunks.digest()

    def digest(self) -> Digest:
        """Wait for the SHA-256, and return the digest."""
        return replace(self.chunked(), sha256=self._sha256.hexdigest())

    def _comparable(self, digest: Digest) -> bool:
        return digest.chunk_size == self._chunks.size and digest.algorithm == ALGORITHM

    def _end_chunk(self) -> None:
        """Compare a chunk that is whole with the known file's at its place."""
        known, index = self._known, len(self._chunks.checksums) - 1
        held = None
        if known is not None and self._chunks.checksums[index:] == [
            *known.digest.checksums[index : index + 1]
        ]:
            held = Held(known.name, index * self._chunks.size)
        for part in self._chunk:
            self._kept.append((part, held))
            held = held and Held(held.name, held.start + len(part))
        self._chunk = []
        if not (self._same and held):
            self._open()
            self._empty()

    def _let_go(self) -> None:
        """Store all that is kept, and compare no more."""
        self._open()
        self._kept += [(part, None) for part in self._chunk]
        self._empty()
        self._chunk, self._known = [], None

    def _open(self) -> None:
        if self._same or self._sink is None:
            self._same = False
            self._sink = self._start()
            if self._sink is None or not self._sink.takes_held:
                self._known = None

    def _empty(self) -> None:
        kept, self._kept = self._kept, []
        for part, held in kept:
            self._pass_on(part, held)

    def _pass_on(self, data: memoryview, held: Held | None) -> None:
        self._sha256.update(data)
        if self._sink is not None:
            self._sink.lend(data, held)


class _Sha256:
    """A SHA-256 that a thread of its own computes, in the order of the updates.

    Args:
        most: bytes that may wait for it; as many as there are by default.
        parallel: whether there is such a thread.
    """

    def __init__(self, most: int | None, *, parallel: bool) -> None:
        self._most = most
        self._parallel = parallel
        self._sent = 0
        self._hash = hashlib.sha256()
        self._waiting: list[memoryview] = []
        self._bytes = 0
        self._pool: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def update(self, data: memoryview) -> None:
        self._waiting.append(data)
        self._bytes += len(data)
        if self._bytes >= _BATCH:
            self._send()

    def wait(self) -> None:
        """Return once all that came was taken."""
        if self._pool is not None:
            self._send()
        if self._last is not None:
            self._last.result()
        self._take(self._waiting)
        self._waiting = []

    def hexdigest(self) -> str:
        self.wait()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        return self._hash.hexdigest()

    def _send(self) -> None:
        batch, self._waiting, self._bytes = self._waiting, [], 0
        if not self._parallel:
            self._take(batch)
            return
        try:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "ckptstore-sha256")
            self._last = self._pool.submit(self._take, batch)
            self._sent += sum(map(len, batch))
            if self._most is not None and self._sent > self._most:
                self._last.result()
                self._sent = 0
        except RuntimeError:  # The interpreter is ending, and starts no thread any more.
            self.wait()
            self._take(batch)

    def _take(self, batch: list[memoryview]) -> None:
        for data in batch:
            self._hash.update(data)
