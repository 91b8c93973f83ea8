"""How far a copy is, and how much of it did not have to be moved."""

from __future__ import annotations

import threading
from collections import Counter

from ckptstore.progress import OnProgress, Progress

__all__ = ["Tally"]


class Tally:
    """Counts the bytes of a copy, for progress and for the report; any thread may count.

    Args:
        total: bytes that are to come.
        progress: is told how many have arrived.
    """

    def __init__(self, total: int, progress: OnProgress | None) -> None:
        self._total = total
        self._progress = progress
        self._near: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def near(self) -> int:
        """Bytes that did not pass through here, or came from the destination itself."""
        return self._near.total()

    def spare(self, name: str, count: int) -> None:
        """Count bytes of a file that need not come from the source; below 0, they did after all."""
        with self._lock:
            self._near[name] += count

    def took(self, name: str, count: int, waiting: int = 0) -> None:
        """Count bytes of a file that the destination has taken.

        Args:
            name: of the file.
            count: bytes, also those that were spared.
            waiting: how many that it took of this file are still on their way.
        """
        with self._lock:
            self._taken[name] += count
            if self._progress is not None:
                done = self._taken.total() - waiting
                self._progress(Progress("copy", name, done, self._total))

    def forget(self, name: str) -> None:
        """Take back what was counted of a file, which starts over."""
        with self._lock:
            del self._near[name], self._taken[name]
