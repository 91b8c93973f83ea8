"""Histograms count every value once, whatever comes, and in whatever order."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptstore import tensors
from ckptstore.statistics import Histogram
from ckptstore.tensors.spread import Spread


@pytest.fixture(autouse=True, scope="module")
def _small_pieces():
    """Every tensor is looked at in several pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptstore.tensors.values._PIECE", 7)
        yield


def histogram_of(tensor, bins=16):
    found = tensors.statistics(tensor, bins).histogram
    assert found is not None
    return found


def counted(values, found: Histogram):
    """Return how many values are in each interval, one value at a time."""
    counts = [0] * len(found.counts)
    for value in values:
        counts[math.floor((value - found.low) / found.width)] += 1
    return tuple(counts)


@pytest.mark.parametrize(
    "values",
    [
        torch.randn(100),
        torch.randn(100) * 0.01 + 1,
        torch.arange(100.0),
        torch.tensor([1e-30, 1e30, -1e30, 0.0]),
        torch.tensor([0.5] * 9),
        torch.zeros(20),
        torch.tensor([-3.0]),
    ],
)
def test_each_value_is_in_its_interval(values):
    found = histogram_of(values)

    assert sum(found.counts) == values.numel()
    assert found.counts == counted(values.double().tolist(), found)
    assert len(found.counts) <= 16


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_intervals_fit_the_values(scale):
    values = (torch.randn(1000) + 50) * scale

    found = histogram_of(values, 16)

    assert len(found.counts) > 8
    assert found.low <= values.min() < found.low + found.width
    assert found.high - found.width <= values.max() < found.high


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1)))
def test_every_finite_value_counts_in_any_order(pieces):
    spread = Spread()
    for piece in pieces:
        spread.add(torch.tensor(piece, dtype=torch.float64))

    found = spread.histogram(64)

    assert (found is None) == (not pieces)
    if found is not None:
        assert sum(found.counts) == sum(map(len, pieces))
        assert len(found.counts) <= 64
        assert found.counts[0]
        assert found.counts[-1]
        # What is nothing beside the width is taken for zero.
        assert found.low - found.width * 1e-9 <= min(map(min, pieces))
        assert math.isinf(found.high) or found.high >= max(map(max, pieces))


def test_what_is_not_finite_is_in_no_interval():
    found = tensors.statistics(torch.tensor([math.nan, 1.0, math.inf, 2.0, -math.inf]), 8)

    assert found.histogram is not None
    assert sum(found.histogram.counts) == 2
    assert tensors.statistics(torch.tensor([math.nan]), 8).histogram is None


def test_without_bins_there_is_none():
    assert tensors.statistics(torch.ones(3)).histogram is None


def test_zeros_that_a_sparse_tensor_does_not_write_down_count():
    dense = torch.zeros(5, 5)
    dense[1, 2] = 3.0

    found = histogram_of(dense.to_sparse())

    assert sum(found.counts) == 25
    assert max(found.counts) == 24


def test_what_an_expanded_tensor_repeats_counts_as_often_as_it_is_shown():
    assert sum(histogram_of(torch.randn(3, 1).expand(3, 10**6)).counts) == 3 * 10**6


def test_a_checkpoint_counts_all_of_its_values(tmp_path):
    import ckptstore

    state = {"w": torch.randn(40, 3), "n": torch.arange(5)}
    checkpoint = ckptstore.save(tmp_path / "x", model=state)

    found = checkpoint.statistics(bins=8)

    assert {name: sum(values.histogram.counts) for name, values in found.items()} == {
        "w": 120,
        "n": 5,
    }
    assert checkpoint.statistics(["n"])["n"].histogram is None
