"""Which steps of a history stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

from ckptstore.errors import UnsupportedError
from ckptstore.manifest import Manifest

__all__ = ["Keep"]


@dataclass(frozen=True)
class Keep:
    """A policy of retention: a step stays if any of these wants it; with none of them, all stay.

    The step that was just saved always stays, and so does the newest.

    Attributes:
        last: how many of the highest steps.
        every: the steps that are a multiple of this.
        best: the name of a metric; the step with the best value of it.
        mode: ``min`` or ``max``: which value of the metric is best.
        newer_than: the steps that were committed within this time, as a timedelta or in seconds.

    Raises:
        UnsupportedError: a number below 1, a time of 0 or less, or an unknown mode.
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
        if self.mode not in ("min", "max"):
            raise UnsupportedError(f"Keep(mode={self.mode!r}) is neither 'min' nor 'max'")

    @property
    def everything(self) -> bool:
        """Whether nothing is ever removed."""
        wanted = (self.last, self.every, self.best, self.newer_than)
        return all(want is None for want in wanted)

    def kept(self, manifests: Sequence[Manifest]) -> set[int]:
        """Return the steps that stay.

        Args:
            manifests: of all committed steps of the history.
        """
        steps = sorted(manifest.step for manifest in manifests if manifest.step is not None)
        if self.everything:
            return set(steps)
        stay = set(steps[-1:])
        if self.last is not None:
            stay.update(steps[-self.last :])
        if self.every is not None:
            stay.update(step for step in steps if step % self.every == 0)
        if self.best is not None:
            stay.update(self._best(manifests, self.best))
        if self.newer_than is not None:
            stay.update(_newer(manifests, self.newer_than))
        return stay

    def _best(self, manifests: Sequence[Manifest], metric: str) -> list[int]:
        sign = 1 if self.mode == "min" else -1
        # Of equal values the later step is the better one.
        measured = [
            (sign * manifest.metrics[metric], -manifest.step)
            for manifest in manifests
            if metric in manifest.metrics and manifest.step is not None
        ]
        return [-min(measured)[1]] if measured else []


def _limit(age: timedelta | float) -> timedelta:
    return age if isinstance(age, timedelta) else timedelta(seconds=age)


def _newer(manifests: Sequence[Manifest], age: timedelta | float) -> list[int]:
    oldest = datetime.now(timezone.utc) - _limit(age)
    return [
        manifest.step
        for manifest in manifests
        if manifest.step is not None and datetime.fromisoformat(manifest.created) >= oldest
    ]
