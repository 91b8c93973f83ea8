"""The threads that send the parts of one upload: a few at once, and all of them gone at its end."""

from __future__ import annotations

import collections
import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any

from ckptstore.storage.s3errand import Errand
from ckptstore.storage.s3parts import Part

__all__ = ["Senders"]

_FIRST_AT_ONCE = 2
_MOST_AT_ONCE = 8
_FAST = 150e6
"""Bytes a second of one connection; where it is slower, more of them carry more."""

_BUFFERS = 64 * 2**20
_LONGEST_END = 10.0


class Senders:
    """Sends parts in threads of its own.

    Args:
        send: sends a part by an errand that it makes known first, and returns its entry in the
            list of all parts.
        done: is told of each part that was sent.
    """

    def __init__(
        self,
        send: Callable[[Part, Callable[[Errand], Errand]], dict[str, Any]],
        done: Callable[[Part], None],
    ) -> None:
        self._send = send
        self._done = done
        self._changed = threading.Condition()
        self._waiting: collections.deque[Part] = collections.deque()
        self._threads: list[threading.Thread] = []
        self._errands: dict[int, Errand] = {}
        self._most = _FIRST_AT_ONCE
        self._busy = 0
        self._owned = self._sending = 0
        self._ends = False
        self._error: BaseException | None = None
        self._answers: dict[int, dict[str, Any]] = {}

    @property
    def begun(self) -> bool:
        """Whether there was a part."""
        return bool(self._threads)

    @property
    def waiting(self) -> int:
        """Bytes of the parts that are not done."""
        return self._sending

    def put(self, part: Part) -> None:
        """Have a part sent soon; waits while enough of them are waiting.

        Raises:
            BaseException: what went wrong with this or an earlier one.
        """
        with self._changed:
            self._waiting.append(part)
            self._owned += part.owned
            self._sending += part.size
            self._busy += 1
            if len(self._threads) < min(self._most, self._busy):
                thread = threading.Thread(target=self._run, name="ckptstore-part", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()
            # One part more is being gathered.
            room = _BUFFERS - part.owned
            self._changed.wait_for(
                lambda: (
                    self._error is not None
                    or (self._busy <= 2 * self._most and self._owned <= max(room, 0))
                )
            )
            self._check()

    def finish(self) -> list[dict[str, Any]]:
        """Wait until all are sent, and return what was answered, in their order.

        Raises:
            BaseException: what went wrong with one.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or not self._busy)
            self._check()
        self._end()
        return [self._answers[number] for number in sorted(self._answers)]

    def stop(self) -> None:
        """Stop what is under way; when this returns no thread looks at the parts any more."""
        with self._changed:
            self._waiting.clear()
            self._error = self._error or concurrent.futures.CancelledError()
            errands = list(self._errands.values())
        for errand in errands:
            errand.interrupt()
        self._end()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _end(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        latest = time.monotonic() + _LONGEST_END
        for thread in self._threads:
            thread.join(max(0.0, latest - time.monotonic()))

    def _run(self) -> None:
        while (part := self._next()) is not None:
            began = time.monotonic()
            try:
                answer = self._send(part, self._known)
            except BaseException as error:  # Whoever puts the next part, or finishes, raises it.
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()
                return
            with self._changed:
                self._answers[part.number] = answer
                self._busy -= 1
                self._owned -= part.owned
                self._sending -= part.size
                if part.size < _FAST * (time.monotonic() - began):
                    self._most = min(self._most * 2, _MOST_AT_ONCE)
                self._errands.pop(threading.get_ident(), None)
                self._done(part)
                self._changed.notify_all()

    def _next(self) -> Part | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ends or self._error is not None)
            if self._error is not None or not self._waiting:
                return None
            return self._waiting.popleft()

    def _known(self, errand: Errand) -> Errand:
        """Let `stop` reach an errand of the thread that calls this."""
        with self._changed:
            self._errands[threading.get_ident()] = errand
            stopped = self._error is not None
        if stopped:
            errand.interrupt()
        return errand
