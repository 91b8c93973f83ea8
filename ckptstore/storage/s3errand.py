"""One heavy request: what memory it sends or fills, who carries it, and how it is stopped."""

from __future__ import annotations

import contextlib
import io
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ckptstore.storage.s3failure import Failure, Kind

__all__ = ["Body", "Errand", "InterruptedErrandError"]


class InterruptedErrandError(Exception):
    """Somebody stopped a request that was under way."""


class Stoppable(Protocol):
    """What carries a request at the moment."""

    def stop(self) -> None:
        """Make it fail at once."""


class Body(io.RawIOBase):
    """Pieces of memory as one body of a request, without a copy of them.

    A file for whoever hashes or sends it as one; `pieces` for who can do without.

    Args:
        views: the pieces, which stay as they are.

    Attributes:
        views: the pieces.
        place: how many bytes have been taken.
    """

    def __init__(self, views: Sequence[memoryview]) -> None:
        super().__init__()
        self.views = [memoryview(view).cast("B") for view in views]
        self.place = 0
        self._size = sum(map(len, self.views))

    def __len__(self) -> int:
        return self._size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return how many bytes have been taken."""
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a place and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self._size}[whence]
        self.place = max(0, base + offset)
        return self.place

    def readinto(self, buffer: Any, /) -> int:
        """Copy the next bytes, as many as there is room for."""
        target = memoryview(buffer).cast("B")
        done = 0
        for piece in self.pieces(max(1, len(target)), self.place):
            part = piece[: len(target) - done]
            target[done : done + len(part)] = part
            done += len(part)
            if done == len(target):
                break
        self.place += done
        return done

    def pieces(self, most: int, start: int = 0) -> Iterator[memoryview]:
        """Give the bytes from ``start`` on, at most ``most`` at once."""
        for view in self.views:
            if start >= len(view):
                start -= len(view)
                continue
            for place in range(start, len(view), most):
                yield view[place : place + most]
            start = 0


class Errand:
    """A request that is carried by the thread that waits for it.

    Everything else about it, signing, retries and errors, is done where all requests are made;
    that thread asks this one, by way of here, to move the bytes.

    Args:
        body: what is sent.
        targets: what is to be filled by the answer.
        tag: the ETag that the answer must have.
        repeats: whether it does no harm if the server hears of it twice.

    Attributes:
        carried: whether the thread that waits has been asked to carry it.
        filled: whether ``targets`` are.
        failure: what the answer means, where it was understood while it came.
        interrupted: whether `interrupt` was called.
    """

    def __init__(
        self,
        *,
        body: Body | None = None,
        targets: Sequence[memoryview] = (),
        tag: str = "",
        repeats: bool = True,
    ) -> None:
        self.body = body
        self.targets = [memoryview(target).cast("B") for target in targets]
        self.tag = tag
        self.repeats = repeats
        self.carried = False
        self.filled = False
        self.failure: Failure | None = None
        self.interrupted = False
        self._size = sum(map(len, self.targets))
        self._lock = threading.Lock()
        self._carrier: Stoppable | None = None
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._give_up: Callable[[], object] = bool

    # -- the thread that waits --------------------------------------------------------------

    def serve(self, give_up: Callable[[], object]) -> None:
        """Do what is asked until all is done.

        Args:
            give_up: ends the request where it is made.
        """
        with self._lock:
            self._give_up = give_up
            interrupted = self.interrupted
        if interrupted:
            give_up()
        while (work := self._asked.get()) is not None:
            work()

    @contextlib.contextmanager
    def on(self, carrier: Stoppable) -> Iterator[None]:
        """Let `stop` reach what carries this, as long as it does."""
        with self._lock:
            self._carrier = carrier
            interrupted = self.interrupted
        try:
            if interrupted:
                raise InterruptedErrandError
            yield
        except Exception as error:
            if self.interrupted:
                raise InterruptedErrandError from error
            raise
        finally:
            with self._lock:
                self._carrier = None

    def takes(self, status: int, headers: Mapping[str, str], length: int | None) -> bool:
        """Whether the body of an answer is what ``targets`` are to be filled with.

        Raises:
            Failure: it should be, and is of another object, or of another size.
        """
        if not self.targets or status not in (200, 206) or "etag" not in headers:
            return False
        if self.tag and headers["etag"] != self.tag:
            # There are servers that ignore the condition.
            self.failure = Failure(Kind.REFUSED, "the object has changed")
        elif length is not None and length != self._size:
            self.failure = Failure(
                Kind.BROKEN, f"the answer has {length} bytes instead of {self._size}", lost=True
            )
        if self.failure is not None:
            raise self.failure
        return True

    def let_go(self) -> None:
        """Forget the memory: timers of kept connections remember the request for a while."""
        self.targets = []
        if self.body is not None:
            self.body.views = []

    # -- the thread that makes requests ------------------------------------------------------

    def begin(self) -> None:
        """Forget an earlier attempt."""
        self.carried, self.filled, self.failure = False, False, None
        if self.body is not None:
            self.body.seek(0)

    def ask(self, work: Callable[[], None] | None) -> None:
        """Have the waiting thread do something; None ends its waiting."""
        self._asked.put(work)

    def stop(self) -> None:
        """Make what is being carried fail."""
        with self._lock:
            if self._carrier is not None:
                self._carrier.stop()

    # -- any other thread --------------------------------------------------------------------

    def interrupt(self) -> None:
        """End it, wherever it is; the thread that waits for it goes on at once."""
        with self._lock:
            self.interrupted = True
            give_up = self._give_up
            if self._carrier is not None:
                self._carrier.stop()
        give_up()
