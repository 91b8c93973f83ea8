"""G1, G2, G7: with all rules together no promise is broken, in whatever order things happen.

What runs here is small, or the beginning of what is large; ``python -m tests.model`` runs all of
it to the end.
"""

from __future__ import annotations

import pytest

from .scenarios import SCENARIOS
from .search import explore

WHOLE = (
    *("first_save", "optimizer_goes", "edit_read", "put", "local_reader"),
    *("step_reader", "overwrite", "overwrite_twice", "overwrite_lost", "equal", "retention"),
    *("pin", "pin_two", "pin_again", "pin_rewind", "pin_local"),
    *("pinned_reader", "local_pinned_reader"),
    *("rewind", "rewind_resume", "leftover", "overwrite_leftover", "step_lost", "step_repeated"),
)
BEGINNING = 30_000


@pytest.mark.parametrize("name", WHOLE)
def test_no_order_of_events_breaks_a_promise(name):
    result = explore(SCENARIOS[name])

    assert result.broken is None, result.trace
    assert result.finished


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {*WHOLE}))
def test_nothing_breaks_a_promise_soon(name):
    result = explore(SCENARIOS[name], most=BEGINNING)

    assert result.broken is None, result.trace
    assert result.states > BEGINNING
