"""Scales of charts: where the ticks are, and how they are called."""

from __future__ import annotations

import math

__all__ = ["Scale", "scale", "tick_text"]

_LARGEST = 1e300  # Differences of larger numbers are no numbers.
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Scale:
    """From values to shares of a side, with round numbers for ticks.

    Args:
        low: the value at 0.
        high: the value at 1, above it.
        ticks: values between the two.
    """

    def __init__(self, low: float, high: float, ticks: tuple[float, ...]) -> None:
        self.low = low
        self.high = high
        self.ticks = ticks

    def at(self, value: float) -> float:
        """Return where a value is, from 0 to 1."""
        value = min(max(value, self.low), self.high)
        return (value - self.low) / (self.high - self.low)


def scale(low: float, high: float, *, count: int = 4, whole: bool = False) -> Scale:
    """Return a scale for values in a range, ticks at its round numbers.

    Args:
        low, high: the range; where it is a point, some room is made around it.
        count: about how many ticks.
        whole: whether ticks are whole numbers, and the scale ends at its values.
    """
    low, high = (min(max(value, -_LARGEST), _LARGEST) for value in (low, high))
    if not high - low > abs(high) * 1e-12:
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    step = _step((high - low) / count)
    if whole:
        step = max(1.0, step)
    else:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    ticks = tuple(n * step for n in range(first, min(last, first + 4 * count) + 1))
    return Scale(low, high, ticks)


def tick_text(value: float) -> str:
    """Return what to write beside a tick: ``0.25``, ``12,000``, ``3e-05``."""
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    text = f"{value:,.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _step(rough: float) -> float:
    power = math.ldexp(1.0, -1022) if rough <= 0 else 10.0 ** math.floor(math.log10(rough))
    if not power:
        return rough
    return next((step * power for step in _STEPS if step * power >= rough * 0.999), 10 * power)
