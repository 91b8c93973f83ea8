"""One object, opened: for writing it, and for reading ranges of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ckptstore.errors import CkptstoreError, NotFoundError
from ckptstore.storage.base import Held, RangeReader, Sink
from ckptstore.storage.s3client import Client
from ckptstore.storage.s3errand import Errand
from ckptstore.storage.s3failure import Failure, Kind
from ckptstore.storage.s3parts import Placed
from ckptstore.storage.s3transfer import READS_AT_ONCE, fetch, fetch_at_once
from ckptstore.storage.s3upload import Upload

__all__ = ["S3Reader", "S3Sink"]

Explained = Callable[[], AbstractContextManager[None]]


class S3Sink(Sink):
    """Hands bytes to an upload, and says what went wrong with them.

    Args:
        upload: takes them.
        target: Bucket and Key of the file that holds something.
        explained: a block that raises a failure as an error for people.
    """

    takes_held = True

    def __init__(
        self, upload: Upload, target: Callable[[Held], Mapping[str, Any]], explained: Explained
    ) -> None:
        self._upload = upload
        self._target = target
        self._explained = explained

    @property
    def part_size(self) -> int:  # type: ignore[override]
        """See `Sink`."""
        return self._upload.part_size

    @property
    def waiting(self) -> int:  # type: ignore[override]
        """See `Sink`."""
        return self._upload.waiting

    @property
    def spared(self) -> int:  # type: ignore[override]
        """See `Sink`."""
        return self._upload.spared

    def write(self, data: memoryview, /) -> None:
        """See `Sink.write`; the bytes are copied."""
        with self._explained():
            self._upload.write(data)

    def lend(self, data: memoryview, /, held: Held | None = None) -> None:
        """See `Sink.lend`; the bytes are sent from where they are."""
        with self._explained():
            self._upload.lend(data, self._placed(held))

    def defer(self, size: int, supply: Callable[[], memoryview], held: Held | None = None) -> None:
        """See `Sink.defer`; a thread that sends parts asks for the bytes."""
        with self._explained():
            self._upload.defer(size, supply, self._placed(held))

    def _placed(self, held: Held | None) -> Placed | None:
        if held is None:
            return None
        target = self._target(held)
        return Placed(target["Bucket"], target["Key"], held.start)


class S3Reader(RangeReader):
    """Reads the object that was there when it was opened, and no other.

    Args:
        client: sends the requests.
        target: Bucket and Key.
        size: of the object, in bytes.
        tag: its ETag.
        tail: its last bytes, which are not read again.
        short: makes the error for a range that ends behind the object's end.
        said: the object, for people.
        explained: a block that raises a failure as an error for people.
    """

    at_once = READS_AT_ONCE
    at_most = 8
    read_size = 32 * 2**20

    def __init__(
        self,
        client: Client,
        target: Mapping[str, Any],
        *,
        size: int,
        tag: str,
        tail: bytes,
        short: Callable[[int], CkptstoreError],
        said: str,
        explained: Explained,
    ) -> None:
        self.size = size
        self._client = client
        self._target = dict(target)
        self._tag = tag
        self._tail = tail
        self._short = short
        self._said = said
        self._explained = explained
        self._lock = threading.Lock()
        self._errands: set[Errand] = set()
        self._stopped = False

    def interrupt(self) -> None:
        """See `RangeReader.interrupt`."""
        with self._lock:
            self._stopped = True
            errands = [*self._errands]
        for errand in errands:
            errand.interrupt()

    @contextlib.contextmanager
    def _under_way(self, errand: Errand) -> Iterator[None]:
        """Let `interrupt` reach an errand as long as it is under way."""
        with self._lock:
            self._errands.add(errand)
            stopped = self._stopped
        try:
            if stopped:
                errand.interrupt()
            yield
        finally:
            with self._lock:
                self._errands.discard(errand)

    def readinto(self, start: int, target: memoryview) -> None:
        """See `RangeReader.readinto`; a large range comes by several requests at once."""
        view = memoryview(target).cast("B")
        with self._range(start + len(view)):
            if self._from_tail(start, [view]):
                return
            place = self._client, self._target, self._tag
            fetch_at_once(*place, start, view, under_way=self._under_way)

    def readinto_parts(self, start: int, targets: Sequence[memoryview]) -> None:
        """See `RangeReader.readinto_parts`; one request."""
        with self._range(start + sum(target.nbytes for target in targets)):
            if self._from_tail(start, targets):
                return
            place = self._client, self._target, self._tag
            fetch(*place, start, targets, under_way=self._under_way)

    def _from_tail(self, start: int, targets: Sequence[memoryview]) -> bool:
        """Fill memory where all of it lies in the tail; return whether it does."""
        at = start - (self.size - len(self._tail))
        if at < 0:
            return False
        for target in targets:
            view = memoryview(target).cast("B")
            view[:] = self._tail[at : at + len(view)]
            at += len(view)
        return True

    @contextlib.contextmanager
    def _range(self, end: int) -> Iterator[None]:
        if end > self.size:
            raise self._short(end)
        with self._explained():
            try:
                yield
            except Failure as failure:
                if failure.kind not in (Kind.REFUSED, Kind.RANGE):
                    raise
                raise NotFoundError(
                    f"{self._said} was replaced while it was read; open it again"
                ) from failure
