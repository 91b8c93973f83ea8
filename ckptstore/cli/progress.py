"""How far something is, from the library's events: a bar on a terminal, lines where there is none.

Both are on stderr, and come only where somebody has to wait.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from ckptstore.cli.messages import is_quiet
from ckptstore.cli.screen import clean, size, width

if TYPE_CHECKING:
    from ckptstore.progress import Progress

__all__ = ["Bar"]

_PATIENCE = 1.0
_INTERVAL = 0.1
_LINE_INTERVAL = 10.0
"""Where there is no terminal: a log is read by people, too, and much later."""

_WINDOW = 10.0
_LEAST_WINDOW = 0.5
"""Seconds over which a rate is taken; sooner it says nothing."""

_CELLS = 24
_CELLS_IF_NARROW = 16
_NARROW = 100


class Bar:
    """Shows `Progress` events; a context manager that leaves a clean line behind.

    On a terminal a bar is drawn from the second second on, elsewhere a plain line is printed
    every ten seconds; with ``--quiet`` nothing is. Events may come from several threads.

    Args:
        clock: tells the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._on = not is_quiet()
        self._terminal = sys.stderr.isatty()
        self._interval = _INTERVAL if self._terminal else _LINE_INTERVAL
        self._lock = threading.Lock()
        self._next = clock() + (_PATIENCE if self._terminal else _LINE_INTERVAL)
        self._seen: deque[tuple[float, int]] = deque()
        self._drawn = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Leave a clean line; the next event draws anew, and is of something else."""
        self._seen.clear()
        if self._drawn:
            _draw("", end="\r")
            self._drawn = False

    def __call__(self, event: Progress) -> None:
        """Take one event."""
        now = self._clock()
        with self._lock:
            if not self._on:
                return
            rate = self._rate(now, event.done)
            if now < self._next:
                return
            self._next = now + self._interval
            if self._terminal:
                self._drawn = True
                _draw(_bar(event, rate))
            else:
                sys.stderr.write(f"{_sentence(event, rate)}\n")
                sys.stderr.flush()

    def _rate(self, now: float, done: int) -> float | None:
        """Return bytes a second over the last seconds; None as long as that says nothing."""
        seen = self._seen
        if seen and done < seen[-1][1]:
            seen.clear()  # It has started over.
        if not seen or now - seen[-1][0] >= _INTERVAL:
            seen.append((now, done))
        while len(seen) > 1 and now - seen[1][0] >= _WINDOW:
            seen.popleft()
        seconds = now - seen[0][0]
        return (done - seen[0][1]) / seconds if seconds >= _LEAST_WINDOW else None


def _draw(line: str, end: str = "") -> None:
    # Spaces, not an escape sequence: every terminal knows them.
    sys.stderr.write(f"\r{line.ljust(width() - 1)}{end}")
    sys.stderr.flush()


def _bar(event: Progress, rate: float | None) -> str:
    share = _share(event)
    cells = _CELLS_IF_NARROW if width() < _NARROW else _CELLS
    filled = round(share * cells)
    amounts = "  ".join([f"{size(event.done)} of {size(event.total)}", *_pace(event, rate)])
    right = f" [{'#' * filled}{'-' * (cells - filled)}] {share:4.0%}  {amounts}"
    left = clean(f"{event.action} {event.name}")
    return left[: max(width() - len(right) - 1, 0)] + right


def _sentence(event: Progress, rate: float | None) -> str:
    amounts = ", ".join([f"{size(event.done)} of {size(event.total)}", *_pace(event, rate)])
    return f"{clean(f'{event.action} {event.name}')}: {_share(event):.0%}, {amounts}"


def _share(event: Progress) -> float:
    return min(event.done / event.total, 1.0) if event.total else 0.0


def _pace(event: Progress, rate: float | None) -> tuple[str, ...]:
    """Return how fast it goes and how long it will take, where that can be told."""
    if rate is None:
        return ()
    if rate < 1:
        return ("stalled",)
    left = max(event.total - event.done, 0) / rate
    return f"{size(round(rate))}/s", f"{_duration(left)} left"


def _duration(seconds: float) -> str:
    """Return a time for people: ``12 s``, ``3:05``, ``2:03:04``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
