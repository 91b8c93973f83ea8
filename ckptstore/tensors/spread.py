"""Counts values in intervals whose width nobody knew beforehand, in one pass and little memory.

The intervals begin and end at multiples of a power of two, and there are at most 2,048 of them.
Where a value lies outside, the width is doubled, two intervals becoming one, until there is room:
so each value is counted once, exactly, whatever comes after it.
"""

from __future__ import annotations

import math
import sys

import torch

from ckptstore.statistics import Histogram

__all__ = ["Spread"]

_MOST = 2048
_LEAST_EXPONENT = -1000  # Below it the inverse of the width is no finite number.
_DIGITS = 40  # Between the largest value and the width: an interval's number is exact in a double.


class Spread:
    """Counts finite values, a piece at a time."""

    def __init__(self) -> None:
        self._exponent: int | None = None
        self._first = 0
        self._counts = torch.zeros(_MOST, dtype=torch.int64)

    def add(self, values: torch.Tensor, times: int = 1) -> None:
        """Count some finite values in double precision, each so many times."""
        low, high = float(values.min()), float(values.max())
        self._make_room(low, high)
        numbers = self._numbers(values) - self._first
        self._counts += torch.bincount(numbers, minlength=_MOST) * times

    def histogram(self, most: int, times: int = 1) -> Histogram | None:
        """Return the counts in at most so many intervals; None where nothing was counted.

        Args:
            most: intervals, at least one; neighbours are counted together.
            times: how often each value that was counted is there.
        """
        filled = self._counts.nonzero().flatten()
        if self._exponent is None or not len(filled):
            return None
        start, end = int(filled[0]), int(filled[-1]) + 1
        together = -(-(end - start) // most)
        kept = self._counts[start:end].tolist()
        counts = (sum(kept[at : at + together]) for at in range(0, len(kept), together))
        width = math.ldexp(1.0, self._exponent)
        return Histogram(
            low=_start(self._first + start, width),
            width=together * width,
            counts=tuple(times * count for count in counts),
        )

    def _numbers(self, values: torch.Tensor) -> torch.Tensor:
        """Return the number of the interval that each value is in; the one from 0 on is 0."""
        return torch.floor(values * math.ldexp(1.0, -(self._exponent or 0))).to(torch.int64)

    def _make_room(self, low: float, high: float) -> None:
        """Make the intervals wide enough for values in a range, beside those that are there."""
        if self._exponent is not None:
            filled = self._counts.nonzero().flatten()
            width = math.ldexp(1.0, self._exponent)
            last = self._first + int(filled[-1])
            low = min(low, _start(self._first + int(filled[0]), width))
            high = max(high, last * width)
        exponent = _exponent_for(low, high)
        if self._exponent is not None:
            exponent = max(exponent, self._exponent)
        while _number(high, exponent) - _number(low, exponent) >= _MOST:
            exponent += 1
        first = _number(low, exponent)
        if self._exponent is not None:
            there = torch.arange(self._first, self._first + _MOST)
            there = (there >> (exponent - self._exponent)) - first
            counts = torch.zeros_like(self._counts)
            inside = self._counts > 0
            self._counts = counts.index_add_(0, there[inside], self._counts[inside])
        self._exponent, self._first = exponent, first


def _start(number: int, width: float) -> float:
    """Return where an interval begins: of the lowest that there is, at the lowest double."""
    return max(number * width, -sys.float_info.max)


def _number(value: float, exponent: int) -> int:
    return math.floor(value * math.ldexp(1.0, -exponent))


def _exponent_for(low: float, high: float) -> int:
    """Return the exponent of the least width that may do for a range."""
    # The span of the largest doubles is no finite number: it is taken of their halves.
    _, span = math.frexp(high / _MOST - low / _MOST)
    _, largest = math.frexp(max(abs(low), abs(high)))
    return max(span - 1 if high > low else _LEAST_EXPONENT, largest - _DIGITS, _LEAST_EXPONENT)
