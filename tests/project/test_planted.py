"""The faults that `python -m benchmarks.planted` plants still fit the sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.planted import PLANTS, PROJECT


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_fault_changes_what_it_says(plant):
    for change in plant.changes:
        text = (PROJECT / change.file).read_text(encoding="utf-8")

        assert text.count(change.before) == 1, change.file
        assert change.before != change.after
    assert all((PROJECT / Path(test)).exists() for test in plant.tests[:1])
