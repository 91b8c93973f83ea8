"""Which steps of a history stay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

from ckptstore.errors import UnsupportedError

__all__ = ["Keep", "Measured"]


@dataclass(frozen=True)
class Measured:
    """One save of a step, as far as anybody decides by it whether it stays.

    Attributes:
        step: which.
        write_id: of the save.
        created: when it was committed, ISO 8601.
        metrics: what was measured of the model.
        nbytes: of all its files together.
    """

    step: int
    write_id: str
    created: str
    metrics: Mapping[str, float]
    nbytes: int


@dataclass(frozen=True)
class Keep:
    """A policy of retention: a step stays if any of these wants it; with none of them, all stay.

    Whatever the policy, these stay: the step that was just saved, the newest, those that are
    pinned, and those that cannot be read. As long as no step has the metric of ``best``, all do.

    Attributes:
        last: how many of the highest steps.
        every: the steps that are a multiple of this.
        best: the name of a metric; the step with the best value of it.
        mode: ``min`` or ``max``: which value of the metric is best.
        newer_than: the steps that were committed within this time, as a timedelta or in seconds.

    Raises:
        UnsupportedError: a number below 1, a time of 0 or less, a metric whose name is no text, or
            an unknown mode.
    """

    last: int | None = None
    every: int | None = None
    best: str | None = None
    mode: Literal["min", "max"] = "min"
    newer_than: timedelta | float | None = None

    def __post_init__(self) -> None:
        for name in ("last", "every"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UnsupportedError(f"Keep({name}={value!r}) is not a count of at least 1")
        age = self.newer_than
        if age is not None and (
            isinstance(age, bool) or not isinstance(age, (int, float, timedelta))
        ):
            raise UnsupportedError(f"Keep(newer_than={age!r}) is neither seconds nor a timedelta")
        if age is not None and not _limit(age) > timedelta(0):
            raise UnsupportedError(f"Keep(newer_than={age!r}) is not a time above 0")
        if self.best is not None and not isinstance(self.best, str):
            raise UnsupportedError(f"Keep(best={self.best!r}) is not the name of a metric")
        if self.mode not in ("min", "max"):
            raise UnsupportedError(f"Keep(mode={self.mode!r}) is neither 'min' nor 'max'")

    @property
    def everything(self) -> bool:
        """Whether nothing is ever removed."""
        wanted = (self.last, self.every, self.best, self.newer_than)
        return all(want is None for want in wanted)

    @property
    def measures(self) -> bool:
        """Whether it asks more of a step than its number."""
        return self.best is not None or self.newer_than is not None

    def rules(self, steps: Sequence[Measured]) -> dict[int, tuple[str, ...]]:
        """Return the steps that stay, and for each which of the rules want it.

        The highest stays as ``newest``; with none of the rules the others do as ``all``. Of equal
        values of a metric the later step is the better one; a value that is no number is none.

        Args:
            steps: of a history, in any order.
        """
        numbers = sorted(each.step for each in steps)
        wanted = {
            "newest": numbers[-1:],
            "all": numbers if self.everything else [],
            "last": numbers[-self.last :] if self.last is not None else [],
            "every": [step for step in numbers if self.every and step % self.every == 0],
            "best": self._best(steps, self.best) if self.best is not None else [],
            "newer_than": self._newer(steps),
        }
        stay: dict[int, tuple[str, ...]] = {}
        for rule, those in wanted.items():
            for step in those:
                stay[step] = (*stay.get(step, ()), rule)
        return stay

    def _best(self, steps: Sequence[Measured], metric: str) -> list[int]:
        sign = 1 if self.mode == "min" else -1
        measured = [
            (sign * each.metrics[metric], -each.step)
            for each in steps
            if metric in each.metrics and math.isfinite(each.metrics[metric])
        ]
        return [-min(measured)[1]] if measured else []

    def _newer(self, steps: Sequence[Measured]) -> list[int]:
        if self.newer_than is None:
            return []
        try:
            oldest = datetime.now(timezone.utc) - _limit(self.newer_than)
        except OverflowError:
            oldest = datetime.min.replace(tzinfo=timezone.utc)
        return [each.step for each in steps if datetime.fromisoformat(each.created) >= oldest]


def _limit(age: timedelta | float) -> timedelta:
    """Return a time as a timedelta: the longest that there is for a longer one, 0 for NaN."""
    if isinstance(age, timedelta):
        return age
    try:
        return timedelta(seconds=age)
    except OverflowError:
        return timedelta.max if age > 0 else timedelta.min
    except ValueError:
        return timedelta(0)
