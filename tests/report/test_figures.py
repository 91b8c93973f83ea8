"""The figures: ticks are round, curves have gaps, histograms count, distances add up."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ckptstore
from ckptstore.report.axes import scale, tick_text
from ckptstore.report.curves import charts, series_of
from ckptstore.report.heatmap import grid_of, places
from ckptstore.report.histograms import chosen, outline
from ckptstore.statistics import Histogram

from .conftest import Parsed, index, measured

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


# -- scales ----------------------------------------------------------------------------------


@given(NUMBERS, NUMBERS)
def test_a_scale_holds_its_values_and_few_ticks(one, other):
    low, high = min(one, other), max(one, other)

    found = scale(low, high)

    assert found.low < found.high
    assert 0 <= found.at(low) <= found.at(high) <= 1
    assert len(found.ticks) <= 17
    assert all(0 <= found.at(tick) <= 1 for tick in found.ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (1.58, 2.79, [1.5, 2, 2.5, 3]), (-3, 9, [-5, 0, 5, 10])],
)
def test_ticks_are_round(low, high, ticks):
    assert scale(low, high).ticks == pytest.approx(ticks)


def test_steps_are_whole_and_end_where_the_run_does():
    found = scale(1, 3, whole=True)

    assert (found.low, found.high, found.ticks) == (1, 3, (1, 2, 3))


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.25, "0.25"), (12000, "12,000"), (3e-5, "3e-05"), (-0.0, "0"), (1e9, "1e+09"), (2.0, "2")],
)
def test_ticks_are_short(value, said):
    assert tick_text(value) == said


# -- curves ----------------------------------------------------------------------------------


def test_every_number_of_a_row_is_a_point_of_its_curve():
    found = {one.name: one.points for one in series_of(measured(3), {})}

    assert list(found) == ["train_loss", "val_loss", "learning_rate"]
    assert found["val_loss"] == ((50, 4.5), (100, 2.25), (150, 1.5))


def test_what_is_no_finite_number_is_a_gap():
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 0.5}]

    (found,) = series_of(rows, {})
    page = Parsed(charts([found]))

    assert found.points[1] == (2, None)
    (curve,) = [p["d"] for p in page.named("path") if p["class"] == "curve s0"]
    assert curve.count("M") == 2
    assert "1 not finite" in page.text


@pytest.mark.parametrize("value", ["much", True, [1], {"a": 1}])
def test_what_is_no_number_is_no_curve(value):
    assert series_of([{"step": 1, "note": value}], {}) == []


def test_a_number_of_any_length_breaks_nothing():
    rows = [
        {"step": 10**400, "loss": 1.0},
        {"step": 1, "loss": 10**400},
        {"step": 2, "loss": 1e308},
    ]

    (found,) = series_of([*rows, {"step": 3, "loss": -1e308}], {})

    assert [value for _, value in found.values] == [1e308, -1e308]
    assert "nan" not in charts([found])


def test_rows_without_steps_are_counted():
    (found,) = series_of([{"loss": 2.0}, {"loss": 1.0}], {})

    assert found.points == ((1, 2.0), (2, 1.0))


def test_the_steps_of_a_history_add_what_no_row_says():
    found = series_of([{"step": 1, "loss": 2.0}], {5: {"accuracy": 0.5, "loss": 9.0}})

    assert {one.name: one.points for one in found} == {
        "loss": ((1, 2.0),),
        "accuracy": ((5, 0.5),),
    }


def test_losses_share_a_chart_and_what_stays_the_same_has_none():
    rows = [{"step": n, "a_loss": n, "b_loss": 2 * n, "lr": 0.5, "acc": n / 2} for n in range(1, 5)]

    page = Parsed(charts(series_of(rows, {})))

    assert len(page.named("svg")) == 2
    assert "lr 0.5" in page.text


def test_a_long_run_keeps_its_extremes_and_little_else():
    rows = [{"step": n, "loss": float(n == 70_000) - float(n == 7)} for n in range(100_000)]

    page = charts(series_of(rows, {}))

    assert len(page) < 100_000
    assert "step 70,000: loss 1" in page
    assert "step 7: loss -1" in page


# -- histograms ------------------------------------------------------------------------------


def area(path: str, height: float = 40) -> list[float]:
    """Return the height of each bar of an outline."""
    return [height - float(top) for top in re.findall(r"V([-\d.e]+)H", path)]


def test_bars_are_as_high_as_they_count():
    bars = area(outline(Histogram(0.0, 1.0, (0, 10, 40, 20))))

    assert bars == pytest.approx([0, 10, 40, 20])


def test_one_value_among_millions_is_still_seen():
    assert area(outline(Histogram(0.0, 1.0, (10**9, 1)))) == pytest.approx([40, 1])


def test_of_very_many_tensors_the_largest_are_drawn_in_the_order_of_the_file():
    tensors = index(a=(1,), b=(9,), c=(5,))

    assert chosen(tensors, 2) == ["b", "c"]


# -- distances -------------------------------------------------------------------------------


def test_heads_are_one_matrix_and_other_numbers_are_not():
    found = places(
        index(
            h__0__a__0__w=(2, 3), h__0__a__1__w=(2, 3), h__0__m__0__w=(2, 3), h__0__m__2__w=(3, 2),
            wte__w=(4,), w=(1,),
        )
    )  # fmt: skip

    assert found == {
        "h.0.a.0.w": ("h.0", "a.*.w"),
        "h.0.a.1.w": ("h.0", "a.*.w"),
        "h.0.m.0.w": ("h.0", "m.0.w"),
        "h.0.m.2.w": ("h.0", "m.2.w"),
        "wte.w": None,
        "w": None,
    }


def grid(tmp_path, before, after):
    ckptstore.save(tmp_path / "a", model=before)
    new = ckptstore.save(tmp_path / "b", model=after)
    found = ckptstore.diff(tmp_path / "a", tmp_path / "b", statistics=True)
    return grid_of(found, new.tensors(), new.statistics())


def test_a_cell_is_the_distance_of_all_its_tensors_together(tmp_path):
    before = {f"h.0.a.{n}.w": torch.randn(3, 4, dtype=torch.float64) for n in range(3)}
    after = {**before, "h.0.a.1.w": before["h.0.a.1.w"] * 3 - 1}

    cell = grid(tmp_path, before, after).cells["h.0"]["a.*.w"]

    old, new = (torch.cat(list(state.values())) for state in (before, after))
    assert cell.relative == pytest.approx(float((new - old).norm() / old.norm()))


def test_what_is_the_same_is_0_and_what_was_0_is_not_known(tmp_path):
    found = grid(
        tmp_path,
        {"h.0.w": torch.ones(2), "h.1.w": torch.zeros(2)},
        {"h.0.w": torch.ones(2), "h.1.w": torch.ones(2)},
    )

    assert found.cells["h.0"]["w"].relative == 0
    assert found.cells["h.1"]["w"].relative is None
    assert found.highest == 0


def test_what_has_another_shape_or_is_new_has_no_cell(tmp_path):
    found = grid(
        tmp_path,
        {"h.0.w": torch.ones(2), "head": torch.ones(1)},
        {"h.0.w": torch.ones(3), "new": torch.ones(2), "head": torch.ones(1) * 2},
    )

    assert found.cells == {}
    assert list(found.others) == ["head"]
    assert found.others["head"].relative == pytest.approx(1)


def test_the_length_of_the_old_tensor_comes_with_a_distance(tmp_path):
    ckptstore.save(tmp_path / "a", model={"w": torch.tensor([3.0, 4.0])})
    ckptstore.save(tmp_path / "b", model={"w": torch.tensor([3.0, 5.0])})

    (change,) = ckptstore.diff(tmp_path / "a", tmp_path / "b", statistics=True).tensors["model"]

    assert change.distance is not None
    assert change.distance.length == pytest.approx(5)
    assert math.isclose(change.distance.relative_l2 or 0, 0.2)
