"""G8: killed anywhere, and told to end anywhere, a training that goes on ends as one that was not.

A short share of ``python -m benchmarks.runs --only trainings``.
"""

from __future__ import annotations

import random

from benchmarks.runs import trainings
from benchmarks.runs.counting import Counts


def test_killed_anywhere_and_killed_again_it_ends_as_one_that_was_not() -> None:
    counts = Counts("trainings")

    trainings.run(8, random.Random(7), counts, lambda event: None)

    assert counts.found == []
    assert counts.rows["deaths"] >= 3
    assert counts.rows["ends compared"] >= 3
