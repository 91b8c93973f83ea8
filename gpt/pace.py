"""How often to save, where saves may take a share of the training's time and no more.

Rules:

1. A save is due when all stalls so far, with that of the next one, are within the share of the
   time that the run has taken by then. A save that took longer than expected is made up for: the
   next one waits for it.
2. The next stall is expected to be the longest of the last few, and somewhat longer; the first
   one is guessed from the bytes.
3. Between two saves there are at least the steps in which one earns its stall, so that a long
   evaluation does not earn a burst of saves.
4. None is due while one is under way in the background: to wait for it would be a stall.

The last save of a run, and the one with which it is preempted, are made in any case.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Pace"]

_REMEMBERED = 3
_LONGER = 1.25
_SLOW_STORAGE = 50e6
_AT_LEAST = 0.1
_WORTH_SAYING = 1.25


class Pace:
    """Chooses the steps that are saved, from what saves turn out to cost.

    Args:
        share: of the time of the run that saves may stall it, above 0 and below 1.
        nbytes: of a save, about.
        clock: tells seconds.
        say: prints a line.
    """

    def __init__(
        self, share: float, nbytes: int, clock: Callable[[], float], say: Callable[[str], None]
    ) -> None:
        self._share = share
        self._clock = clock
        self._say = say
        self._began = clock()
        self._stalled = 0.0
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self._guess = _AT_LEAST + nbytes / _SLOW_STORAGE
        self._steps = 0
        self._since = 0
        self._said: int | None = None

    def step_finished(self) -> None:
        """Count a step."""
        self._steps += 1
        self._since += 1

    def is_due(self, *, is_busy: bool) -> bool:
        """Whether to save now.

        Args:
            is_busy: whether a save is under way in the background.
        """
        if is_busy:
            return False
        expected = self._expected()
        elapsed = self._clock() - self._began
        within = self._stalled + expected <= self._share * (elapsed + expected)
        return within and self._since >= self.interval()

    def interval(self) -> int:
        """Return the steps from one save to the next that the share allows, as things are."""
        training = self._clock() - self._began - self._stalled
        if not self._steps or training <= 0:
            return 1
        earned = training / self._steps * self._share / (1 - self._share)
        return max(1, math.ceil(self._expected() / earned))

    @contextmanager
    def stall(self, *, is_save: bool = True) -> Iterator[None]:
        """Measure how long the training waits for what is done within.

        Args:
            is_save: whether that is a save, and not what is made ready for one.
        """
        before = self._clock()
        try:
            yield
        finally:
            took = self._clock() - before
            self._stalled += took
            if is_save:
                self._recent.append(took)
                self._since = 0

    def say_interval(self) -> None:
        """Say what was chosen, where that is not what was said last."""
        chosen = self.interval()
        said = self._said
        if said is None or not said / _WORTH_SAYING <= chosen <= said * _WORTH_SAYING:
            self._said = chosen
            self._say(
                f"saving about every {chosen} steps: a save stalls the training for "
                f"{max(self._recent, default=self._guess):.2g} s, and may for "
                f"{self._share:.2%} of its time"
            )

    def say_total(self) -> None:
        """Say what all saves of the run took, the last one included."""
        elapsed = self._clock() - self._began
        if elapsed > 0:
            self._say(
                f"saves stalled the training for {self._stalled:.2g} s of {elapsed:.3g} s "
                f"({self._stalled / elapsed:.2%}), the last one included"
            )

    def _expected(self) -> float:
        return max(self._recent) * _LONGER if self._recent else self._guess
