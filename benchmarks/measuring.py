"""How all benchmarks measure: rounds, ratios, medians.

Rules: in each round every variant runs once, in a random order, so that what changes with time
(other load, clock, caches) meets all of them; a variant is compared with the baseline of its own
round, and the median of these ratios is what counts; before each timed call as much memory as it
will need is touched and freed, so that no variant pays for the first touch of pages.

`measure` runs calls in this process; `benchmarks.speed` runs each in a fresh one, by the same
rules.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Measured", "Spread", "measure", "print_table", "ratios"]


@dataclass(frozen=True)
class Spread:
    """Some numbers: the median, the smallest, the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Summarise numbers, of which there is at least one."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


def ratios(own: Mapping[int, float], base: Mapping[int, float]) -> Spread | None:
    """Divide round by round what was measured by the baseline's, where a round has both.

    Args:
        own: by the number of the round.
        base: by the number of the round.

    Returns:
        The ratios; None where no round has both.
    """
    both = [own[number] / base[number] for number in own if base.get(number)]
    return Spread.of(both) if both else None


@dataclass(frozen=True)
class Measured:
    """One variant.

    Attributes:
        name: what was run.
        seconds: median over the rounds.
        ratio: the baseline's time by this one's, median over the rounds: 2 is twice as fast.
        low: the smallest of these ratios.
        high: the largest.
    """

    name: str
    seconds: float
    ratio: float
    low: float
    high: float


def measure(
    variants: Mapping[str, Callable[[], object]],
    *,
    baseline: str,
    rounds: int,
    touch: int = 0,
) -> list[Measured]:
    """Run all variants in each of some rounds.

    Args:
        variants: name to a call without arguments.
        baseline: the name of the one that the others are compared with.
        rounds: how many; one more, not counted, comes first.
        touch: bytes of memory to touch and free before each call.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        order = list(variants)
        random.shuffle(order)
        for name in order:
            _touch(touch)
            start = time.perf_counter()
            variants[name]()
            if number:
                times[name].append(time.perf_counter() - start)
    return [_measured(name, times[name], times[baseline]) for name in variants]


def print_table(found: list[Measured], *, nbytes: int, baseline: str) -> None:
    """Print a Markdown table.

    Args:
        found: what `measure` returned.
        nbytes: bytes that each call worked on.
        baseline: what the ratios are against, for the heading.
    """
    print(f"| variant | ms | GB/s | times as fast as {baseline} | lowest to highest |")
    print("|---|---|---|---|---|")
    for one in found:
        speed = f"{nbytes / one.seconds / 1e9:.2f}"
        spread = f"{one.low:.2f} to {one.high:.2f}"
        print(f"| {one.name} | {one.seconds * 1e3:.1f} | {speed} | {one.ratio:.2f} | {spread} |")


def _measured(name: str, own: list[float], base: list[float]) -> Measured:
    found = Spread.of(other / mine for mine, other in zip(own, base, strict=True))
    seconds = statistics.median(own)
    return Measured(name, seconds, ratio=found.median, low=found.low, high=found.high)


def _touch(nbytes: int) -> None:
    memory = bytearray(nbytes)
    memory[::4096] = bytes(len(range(0, nbytes, 4096)))
