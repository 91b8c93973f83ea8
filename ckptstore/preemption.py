"""Hears that a machine is about to be taken away, so that a training can save in time.

Rules:

1. What is heard is only noted: the training looks when it can, between two steps.
2. A second signal does what it would do if nobody listened: the training ends at once. What was
   being saved then does not count, and the checkpoint before it is whole (G2).
3. Nothing here waits for a lock: a signal may come while one is held.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any

from ckptstore.errors import UnsupportedError

__all__ = ["Preemption"]

log = logging.getLogger(__name__)

_BOTH = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class _Heard:
    reason: str
    deadline: float


class Preemption:
    """A context manager for any training loop: hears that the training is to end, and how soon.

    ``with ckptstore.Preemption(within=30.0) as preemption:`` hears SIGTERM and SIGINT until the
    block ends; then their handlers are what they were. The loop asks `requested` between two
    steps, saves, and leaves. A second signal is handed to the handler that was there before, as
    if nobody had listened; where that was to ignore it, the program ends of it all the same, as
    by default. Whatever a save was at then, the checkpoint before it stays whole (G2).

    Python hands signals to the main thread only. In another one pass ``signals=()``, and call
    `request`, or give a ``notice``.

    Args:
        within: seconds from a signal until the machine is gone, or the process killed.
        signals: which to hear; those that the program was started to ignore are heard too.
        notice: asked in a thread of its own whether the machine is to be taken away, as a cloud
            says it at an address or in a file. It returns None or False while that is not so,
            afterwards True or text that says why. What it raises is a warning in the log, once,
            and it is asked again.
        notice_every: seconds from one such question to the next.
        notice_within: seconds from a notice until the machine is gone; as ``within`` by default.
        expired: called in a thread of its own when time is up and the block has not ended, as a
            last resort: ``lambda: os._exit(1)`` ends a save that hangs, and the checkpoint before
            it is whole.

    Raises:
        UnsupportedError: a time is no number above 0; a signal cannot be heard, or not in this
            thread; the block is entered a second time.
    """

    def __init__(
        self,
        within: float = 30.0,
        *,
        signals: Iterable[int] = _BOTH,
        notice: Callable[[], object] | None = None,
        notice_every: float = 5.0,
        notice_within: float | None = None,
        expired: Callable[[], object] | None = None,
    ) -> None:
        self._within = _seconds("within", within)
        self._signals = tuple(signals)
        self._notice = notice
        self._notice_every = _seconds("notice_every", notice_every)
        self._notice_within = _seconds(
            "notice_within", within if notice_within is None else notice_within
        )
        self._expired = expired
        self._heard: list[_Heard] = []
        self._signalled = False
        self._before: dict[int, Any] = {}
        self._entered = False
        self._process = os.getpid()
        # Queues of this kind alone may be put into by a signal that interrupts just that.
        self._to_watch: SimpleQueue[bool] = SimpleQueue()
        self._to_ask: SimpleQueue[bool] = SimpleQueue()
        self._watching: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Preemption {self.reason or 'not requested'}>"

    @property
    def requested(self) -> bool:
        """Whether the training is to end."""
        return bool(self._heard)

    @property
    def reason(self) -> str | None:
        """What asked for the end first, such as ``SIGTERM``; None while nothing did."""
        return self._heard[0].reason if self._heard else None

    def remaining(self) -> float | None:
        """Return the seconds that are left, 0 when they are over; None while nothing was heard.

        Of several deadlines the earliest counts.
        """
        if not self._heard:
            return None
        return max(0.0, min(heard.deadline for heard in tuple(self._heard)) - time.monotonic())

    def request(self, reason: str, within: float | None = None) -> None:
        """Say that the training is to end; from any thread, or from a signal's handler.

        Args:
            reason: what for; the first one is told.
            within: seconds until the machine is gone; by default those of the block.

        Raises:
            UnsupportedError: ``within`` is no number above 0.
        """
        seconds = self._within if within is None else _seconds("within", within)
        self._heard.append(_Heard(reason, time.monotonic() + seconds))
        self._to_watch.put(True)

    def __enter__(self) -> Preemption:
        if self._entered:
            raise UnsupportedError("a Preemption is entered twice; make another one")
        self._entered = True
        self._process = os.getpid()
        self._listen()
        if self._expired is not None:
            self._watching = threading.Thread(
                target=self._watch, args=(self._expired,), name="ckptstore-deadline", daemon=True
            )
            self._watching.start()
        if self._notice is not None:
            # Nobody waits for its end: an address that is asked may take its time to answer.
            threading.Thread(
                target=self._ask, args=(self._notice,), name="ckptstore-notice", daemon=True
            ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._put_back()
        self._to_watch.put(False)
        self._to_ask.put(False)
        if self._watching is not None:
            self._watching.join()

    # -- signals ------------------------------------------------------------------------

    def _listen(self) -> None:
        if not self._signals:
            return
        if threading.current_thread() is not threading.main_thread():
            raise UnsupportedError(
                "signals are heard in the main thread only, and this is "
                f"{threading.current_thread().name!r}; pass signals=() and call request(), or "
                "give a notice"
            )
        try:
            for number in self._signals:
                before = signal.getsignal(number)
                signal.signal(number, self._hear)
                self._before.setdefault(number, before)
        except (OSError, ValueError) as error:
            self._put_back()
            raise UnsupportedError(f"signal {_name(number)} cannot be heard: {error}") from error

    def _put_back(self) -> None:
        for number, before in self._before.items():
            # Whoever has replaced ours meanwhile has put theirs in its place for good.
            if signal.getsignal(number) == self._hear:
                signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before = {}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._signalled or os.getpid() != self._process:
            # A fork, such as a worker that loads data, has no training to save.
            self._leave(number, frame)
        else:
            self._signalled = True
            self.request(_name(number))

    def _leave(self, number: int, frame: FrameType | None) -> None:
        before = self._before.get(number)
        self._put_back()
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    # -- threads ------------------------------------------------------------------------

    def _watch(self, expired: Callable[[], object]) -> None:
        """Wait until the block has ended, or time is up."""
        while (left := self.remaining()) is None or left > 0:
            with contextlib.suppress(Empty):
                if not self._to_watch.get(timeout=left):
                    return
        expired()

    def _ask(self, notice: Callable[[], object]) -> None:
        failed = False
        while True:
            try:
                answer = notice()
            except Exception as error:
                if not failed:
                    log.warning("the notice of a preemption could not be asked for: %r", error)
                failed = True
            else:
                if answer:
                    self.request(
                        answer if isinstance(answer, str) else "a notice", self._notice_within
                    )
                    return
            with contextlib.suppress(Empty):
                self._to_ask.get(timeout=self._notice_every)
                return


def _seconds(name: str, value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
        if math.isfinite(seconds) and seconds > 0:
            return seconds
    raise UnsupportedError(f"{name} is {value!r}, not a number of seconds above 0")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
