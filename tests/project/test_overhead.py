"""`python -m benchmarks.overhead` holds steps beside a save against steps of the same run."""

from __future__ import annotations

from itertools import accumulate

import pytest

from benchmarks import overhead


def test_a_save_costs_what_the_steps_after_it_take_more_than_those_before_the_next():
    plain, beside = [0.1] * 10, [0.35, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.1]
    ends = [5.0, *accumulate([*plain, *beside, *plain, *beside, *plain[:3]], initial=5.0)][1:]

    costs = overhead._costs(ends, 10)

    assert costs == pytest.approx([0.55, 0.0, 0.55])
