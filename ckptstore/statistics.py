"""What the values of a tensor are like, and how far two tensors are apart: plain data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Distance", "Statistics"]


@dataclass(frozen=True)
class Statistics:
    """What the values of one tensor are like. NaN and infinite ones count for nothing else.

    Attributes:
        minimum, maximum: of the finite values; None where there are none. Complex values are
            taken by their magnitude, truth values as 0 and 1.
        mean, std: of the same; the standard deviation of all of them, not of a sample.
        nan, inf, zeros: how many values are NaN, infinite, zero.
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    nan: int
    inf: int
    zeros: int


@dataclass(frozen=True)
class Distance:
    """How far a tensor is from what it was.

    Attributes:
        relative_l2: the length of the change over that of the old tensor; None where that is 0.
        cosine: of the angle between the two; None where one of them is 0.
    """

    relative_l2: float | None
    cosine: float | None
