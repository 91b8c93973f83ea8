"""G2, G3: a lost, refused or false answer at any operation loses nothing, and is told rightly."""

from __future__ import annotations

import pytest

from tests.faults.acts import ACTS
from tests.faults.deaths import numbered
from tests.faults.replies import harmed

# The others are in `python -m tests.faults`.
CHOSEN = ("first save", "replace", "next step", "overwrite")


@pytest.mark.parametrize("name", CHOSEN)
def test_what_a_save_says_is_true_whatever_it_was_answered(name: str, memory_url: str) -> None:
    result = harmed(ACTS[name], numbered(memory_url))

    assert result.wrong == []
    assert result.times > 40
    assert len(result.seen) == 2
