"""A progress bar over the library's events, on stderr, only where a person waits for it."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from ckptstore.cli.messages import is_quiet
from ckptstore.cli.screen import clean, size, width

if TYPE_CHECKING:
    from ckptstore.progress import Progress

__all__ = ["Bar"]

_PATIENCE = 1.0
_INTERVAL = 0.1
_CELLS = 24


class Bar:
    """Shows `Progress` events; a context manager that leaves a clean line behind.

    Nothing is shown before a second has passed, with ``--quiet``, or where stderr is no
    terminal. Events may come from several threads.
    """

    def __init__(self) -> None:
        self._on = sys.stderr.isatty() and not is_quiet()
        self._lock = threading.Lock()
        self._next = time.monotonic() + _PATIENCE
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
        """Leave a clean line; the next event draws anew."""
        if self._drawn:
            _draw("", end="\r")
            self._drawn = False

    def __call__(self, event: Progress) -> None:
        """Take one event."""
        now = time.monotonic()
        with self._lock:
            if not self._on or now < self._next:
                return
            self._next = now + _INTERVAL
            self._drawn = True
            _draw(_line(event))


def _draw(line: str, end: str = "") -> None:
    # Spaces, not an escape sequence: every terminal knows them.
    sys.stderr.write(f"\r{line.ljust(width() - 1)}{end}")
    sys.stderr.flush()


def _line(event: Progress) -> str:
    share = min(event.done / event.total, 1.0) if event.total else 0.0
    filled = round(share * _CELLS)
    amounts = f"{size(event.done)} of {size(event.total)}"
    right = f" [{'#' * filled}{'-' * (_CELLS - filled)}] {share:4.0%}  {amounts}"
    left = clean(f"{event.action} {event.name}")
    return left[: max(width() - len(right) - 1, 0)] + right
