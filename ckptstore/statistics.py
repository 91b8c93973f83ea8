"""What the values of a tensor are like, and how far two tensors are apart: plain data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Distance", "Histogram", "Statistics"]


@dataclass(frozen=True)
class Histogram:
    """How values are spread: how many there are in each of some equal intervals, side by side.

    Attributes:
        low: where the first interval begins.
        width: of each; it holds its lower end and not its upper one.
        counts: how many finite values are in each; together all that there are.
    """

    low: float
    width: float
    counts: tuple[int, ...]

    @property
    def high(self) -> float:
        """Where the last interval ends."""
        return self.low + self.width * len(self.counts)


@dataclass(frozen=True)
class Statistics:
    """What the values of one tensor are like. NaN and infinite ones count for nothing else.

    Attributes:
        minimum, maximum: of the finite values; None where there are none. Complex values are
            taken by their magnitude, truth values as 0 and 1.
        mean, std: of the same; the standard deviation of all of them, not of a sample.
        nan, inf, zeros: how many values are NaN, infinite, zero.
        histogram: of the finite values; None where it was not asked for, or there are none.
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    nan: int
    inf: int
    zeros: int
    histogram: Histogram | None = None


@dataclass(frozen=True)
class Distance:
    """How far a tensor is from what it was.

    Attributes:
        relative_l2: the length of the change over that of the old tensor; None where that is 0.
        cosine: of the angle between the two; None where one of them is 0.
        length: of the old tensor.
    """

    relative_l2: float | None
    cosine: float | None
    length: float = 0.0
