"""G2: retention removes what no rule wants, never the newest, the saved, the best, the pinned."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptstore
from ckptstore import Keep
from ckptstore.manifest import MANIFEST
from ckptstore.retaining import Retained
from ckptstore.storage import connect
from ckptstore.testing import Crash, Killed, Nothing, asked, inject

MODEL = {"w": torch.ones(2)}
LOSSES = {100: 3.0, 200: 1.0, 300: 2.0, 400: 2.5, 500: 2.6}
Make = Callable[..., ckptstore.Store]


@pytest.fixture
def make(location: Any) -> Make:
    """Give a function that saves steps with their losses, and returns a store with a policy."""
    url, options = location

    def make(losses: dict[int, float | None], keep: Keep | None = None) -> ckptstore.Store:
        store = ckptstore.Store(url, keep=Keep(), durable=False, storage_options=options)
        for step, loss in losses.items():
            metrics = {} if loss is None else {"val_loss": loss}
            store.save(model=MODEL, step=step, metrics=metrics)
        return ckptstore.Store(url, keep=keep, durable=False, storage_options=options)

    return make


def folder(store: ckptstore.Store, step: int) -> str:
    return f"step-{step:08d}"


def damage(store: ckptstore.Store, step: int) -> None:
    """Leave a manifest that nobody can read."""
    store._storage.replace(f"{folder(store, step)}/{MANIFEST}", b"{")


def test_the_report_says_by_which_rules_a_step_stays_and_what_went(make):
    store = make(LOSSES)
    store.pin(400)

    found = store.retain(Keep(last=1, every=300, best="val_loss"))

    assert found.stays == {
        200: ("best",),
        300: ("every",),
        400: ("pinned",),
        500: ("newest", "last"),
    }
    assert [*found.gone] == [100]
    assert found.nbytes == found.gone[100] > 200
    assert not found.dry_run
    assert store.steps() == (200, 300, 400, 500)


def test_a_dry_run_says_the_same_and_removes_nothing(make):
    store = make(LOSSES)

    said = store.retain(Keep(last=2), dry_run=True)

    assert store.steps() == tuple(LOSSES)
    done = store.retain(Keep(last=2))
    assert said == Retained(done.location, done.stays, done.gone, dry_run=True)
    assert store.steps() == (400, 500)


def test_a_store_without_a_policy_asks_for_one(make):
    with pytest.raises(ckptstore.UnsupportedError, match=r"without a policy; .*Keep\(last=3\)"):
        make(LOSSES).retain()


def test_a_stores_own_policy_is_the_default(make):
    store = make(LOSSES, Keep(last=1))

    assert store.retain().stays == {500: ("newest", "last")}


def test_a_policy_without_rules_keeps_all(make):
    found = make(LOSSES).retain(Keep())

    assert found.stays[100] == ("all",)
    assert found.stays[500] == ("newest", "all")
    assert found.gone == {}


def test_where_no_step_is_there_is_nothing_to_retain(make):
    with pytest.raises(ckptstore.NotFoundError, match="no steps in .*: it is no history"):
        make({}).retain(Keep(last=1))


class TestTheBest:
    def test_it_stays_where_the_metric_is_missing_in_newer_ones(self, make):
        store = make({100: 3.0, 200: 1.0, 300: None, 400: None}, Keep(last=1, best="val_loss"))

        store.save(model=MODEL, step=500)

        assert store.steps() == (200, 500)

    def test_of_equal_ones_the_later_is_the_better(self, make):
        store = make({100: 1.0, 200: 1.0, 300: 2.0})

        assert store.retain(Keep(best="val_loss")).stays[200] == ("best",)
        assert store.steps() == (200, 300)

    def test_what_cannot_be_read_may_be_it_and_stays(self, make, caplog):
        store = make({100: 3.0, 200: 1.0, 300: 2.0, 400: 2.5})
        damage(store, 200)

        with caplog.at_level(logging.WARNING):
            found = store.retain(Keep(best="val_loss"))

        assert found.stays == {200: ("unreadable",), 300: ("best",), 400: ("newest",)}
        assert "step 200 stays, for it cannot be read" in caplog.text

    def test_where_nobody_measured_it_nothing_goes(self, make):
        store = make(LOSSES)

        with pytest.raises(
            ckptstore.NotFoundError,
            match=r"has the metric 'val_los', .* nothing is removed; there are: val_loss",
        ):
            store.retain(Keep(last=1, best="val_los"))

        assert store.steps() == tuple(LOSSES)

    def test_a_save_goes_on_where_nobody_measured_it_and_says_so(self, make, caplog):
        store = make({100: None, 200: None}, Keep(last=1, best="val_loss"))

        with caplog.at_level(logging.WARNING):
            store.save(model=MODEL, step=300)

        assert "older ones were not removed: no step of" in caplog.text
        assert store.steps() == (100, 200, 300)
        store.save(model=MODEL, step=400, metrics={"val_loss": 1.0})
        store.save(model=MODEL, step=500)
        assert store.steps() == (400, 500)

    def test_a_value_that_is_no_number_is_none(self, tmp_path):
        from ckptstore.keep import Measured

        now = "2026-01-01T00:00:00+00:00"
        steps = [
            Measured(step, str(step), now, {"loss": loss}, 0)
            for step, loss in ((1, float("nan")), (2, 0.5), (3, float("-inf")), (4, 0.7))
        ]

        assert Keep(best="loss").rules(steps)[2] == ("best",)


class TestWhatCounts:
    def test_a_damaged_step_never_stands_for_a_sound_one(self, make):
        store = make(LOSSES)
        damage(store, 400)

        found = store.retain(Keep(last=2))

        assert found.stays[300] == ("last",)
        assert found.stays[400] == ("unreadable",)
        assert store.steps() == (300, 400, 500)

    def test_what_was_damaged_since_it_was_read_stays(self, tmp_path):
        with ckptstore.Store(tmp_path, keep=Keep()) as store:
            for step in (1, 2, 3):
                store.save(model=MODEL, step=step)
            assert [*store.retain(Keep(last=1), dry_run=True).gone] == [1, 2]
            damage(store, 1)

            found = store.retain(Keep(last=1))

        assert found.stays == {1: ("unreadable",), 3: ("newest", "last")}
        assert not list(tmp_path.rglob("removing.*"))

    def test_where_the_newest_cannot_be_read_the_newest_that_can_stays_too(self, make):
        store = make(LOSSES)
        damage(store, 500)

        found = store.retain(Keep(last=1))

        assert found.stays == {400: ("newest", "last"), 500: ("unreadable",)}

    def test_what_was_just_saved_stays_even_below_all_others(self, make):
        store = make({100: None, 200: None, 300: None}, Keep(last=2))

        store.save(model=MODEL, step=50)
        assert store.steps() == (50, 200, 300)

        store.save(model=MODEL, step=60)
        assert store.steps() == (60, 200, 300), "the one before was not in the last two"

    def test_rules_look_at_numbers_whatever_the_order_of_the_saves(self, make):
        top = 10**18 - 1
        steps = [10**8, 5, 99_999_999, 10**9, 0, top, 7]
        store = make(dict.fromkeys(steps), Keep(last=3))

        assert store.steps() == tuple(sorted(steps))
        assert store.open().step == top
        store.save(model=MODEL, step=99_999_998)

        assert store.steps() == (99_999_998, 10**8, 10**9, top)
        assert store.retain(Keep(every=10**8)).stays == {
            10**8: ("every",),
            10**9: ("every",),
            top: ("newest",),
        }

    def test_newer_than_is_by_when_they_were_committed(self, make):
        store = make(LOSSES)

        assert store.retain(Keep(newer_than=timedelta(hours=1))).gone == {}
        assert [*store.retain(Keep(newer_than=1e-6)).stays] == [500]

    @pytest.mark.parametrize("age", [timedelta.max, 1e12, 1e300, float("inf")])
    def test_a_time_longer_than_all_keeps_all(self, make, age):
        assert make(LOSSES).retain(Keep(newer_than=age)).gone == {}

    @pytest.mark.parametrize(
        "rule", [{"newer_than": float("nan")}, {"newer_than": -1e300}, {"best": 5}, {"best": True}]
    )
    def test_a_rule_that_is_none_is_refused(self, rule):
        with pytest.raises(
            ckptstore.UnsupportedError, match=r"is not a time above 0|is not the name of a metric"
        ):
            Keep(**rule)

    @pytest.mark.parametrize("step", [-1, 10**18, 1.5, "7", True])
    def test_a_step_that_is_no_count_is_refused(self, make, step):
        store = make({5: None}, Keep())

        with pytest.raises(ckptstore.UnsupportedError, match="not a count of finished steps"):
            store.save(model=MODEL, step=step)
        assert store.steps() == (5,)

    def test_a_step_saved_again_is_judged_by_what_it_is_now(self, make):
        store = make({100: 1.0, 200: 2.0, 300: 3.0})
        policy = Keep(last=1, best="val_loss")
        assert store.retain(policy, dry_run=True).stays[100] == ("best",)
        other = ckptstore.Store(store.location, keep=Keep(), storage_options=store._options)
        try:
            other.save(
                model={"w": torch.zeros(2)}, step=100, metrics={"val_loss": 9.0}, overwrite=True
            )
        except ckptstore.UnsupportedError:
            pytest.skip("this storage replaces no step")

        assert store.retain(policy).stays == {200: ("best",), 300: ("newest", "last")}


class TestPins:
    def test_no_save_removes_what_is_pinned(self, make):
        store = make({100: None, 200: None}, Keep(last=1))
        store.pin(100)

        store.save(model=MODEL, step=300)
        store.save(model=MODEL, step=400)

        assert store.steps() == (100, 400)
        assert store.pinned() == (100,)
        store.unpin(100)
        store.save(model=MODEL, step=500)
        assert store.steps() == (500,)

    def test_going_back_refuses_before_anything_is_removed(self, make):
        store = make({100: None, 200: None, 300: None})
        store.pin(200)

        with pytest.raises(
            ckptstore.ConflictError,
            match=r"going back to step 100 would take step 200 .* nothing was removed, .* --remove",
        ):
            store.rewind(100)

        assert store.steps() == (100, 200, 300)
        assert store.rewind(200) == (300,)

    def test_removal_refuses_and_so_does_its_dry_run(self, make):
        store = make({100: None, 200: None, 300: None})
        store.pin(100)
        store.pin(200)

        for dry_run in (True, False):
            with pytest.raises(ckptstore.ConflictError, match="removing step 200 would take"):
                store.remove(200, dry_run=dry_run)
            with pytest.raises(ckptstore.ConflictError, match="would take steps 100, 200 of"):
                store.remove(dry_run=dry_run)
        assert store.steps() == (100, 200, 300)

    def test_a_copy_has_no_pins(self, make, tmp_path):
        store = make({100: None, 200: None})
        store.pin(200)

        for _ in ckptstore.sync_steps(
            store.location,
            tmp_path / "copy",
            storage_options=store._options,
            destination_options={},
        ):
            pass

        copy = ckptstore.Store(tmp_path / "copy")
        assert copy.steps() == (100, 200)
        assert copy.pinned() == ()


def test_nothing_goes_before_the_newer_one_is_committed(tmp_path):
    with ckptstore.Store(tmp_path / "h", keep=Keep(last=1)) as store:
        store.save(model=MODEL, step=1)
    died = 0
    for at in range(1, 40):
        with inject(Crash(at)) as seen:
            store = ckptstore.Store(tmp_path / "h", keep=Keep(last=1))
            try:
                store.save(model=MODEL, step=at + 1)
                break
            except Killed:
                died += 1
        there = ckptstore.Store(tmp_path / "h").steps()
        deleted = [op for op in seen.operations if op.name == "delete" and MANIFEST in op.path]
        assert there, "one is always there"
        assert not deleted or there[-1] == at + 1
    assert died > 10


def test_a_removal_that_fails_is_told_and_done_by_the_next_save(tmp_path, caplog):
    with ckptstore.Store(tmp_path / "h", keep=Keep()) as store:
        for step in (1, 2, 3):
            store.save(model=MODEL, step=step)
    from ckptstore.testing import Refuse

    with (
        caplog.at_level(logging.WARNING),
        inject(Refuse(asked("delete", MANIFEST), "denied", times=1)),
    ):
        ckptstore.Store(tmp_path / "h", keep=Keep(last=1)).save(model=MODEL, step=4)

    assert "step 4 is committed, older ones were not removed" in caplog.text
    assert ckptstore.open(tmp_path / "h").step == 4
    store = ckptstore.Store(tmp_path / "h", keep=Keep(last=1))
    store.save(model=MODEL, step=5)
    assert store.steps() == (5,)


def test_the_pin_is_json_for_people(tmp_path):
    with ckptstore.Store(tmp_path, keep=Keep()) as store:
        store.save(model=MODEL, step=1)
        store.pin(1)

    assert [*json.loads(Path(tmp_path, "step-00000001/pinned.json").read_text())] == ["pinned"]
    assert ckptstore.open(tmp_path).verify().sound
    assert connect(tmp_path).list("").folders == ("step-00000001",)


class TestWhereStepsAreMany:
    """Where a policy only counts, and steps are many, their folders tell what goes."""

    @pytest.fixture(autouse=True)
    def _many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ckptstore.retaining._MANY", 3)

    def saved(self, store: ckptstore.Store, *steps: int) -> list[str]:
        """Save steps, and return what was asked of the storage for the last of them."""
        for step in steps[:-1]:
            store.save(model=MODEL, step=step)
        with inject(Nothing()) as seen:
            other = ckptstore.Store(store.location, keep=store.keep)
            other._committer.retention = store._committer.retention
            real = store._retention._storage
            store._retention._storage = other._storage
            other.save(model=MODEL, step=steps[-1])
            store._retention._storage = real
        return [operation.name for operation in seen.operations]

    def test_no_file_of_the_others_is_listed(self, tmp_path):
        store = ckptstore.Store(tmp_path, keep=Keep(last=2, every=10))

        asked = self.saved(store, 10, 20, 30, 31, 32, 33)

        assert "holding" not in asked
        assert store.steps() == (10, 20, 30, 32, 33)

    def test_what_is_pinned_stays(self, tmp_path):
        store = ckptstore.Store(tmp_path, keep=Keep(last=4))
        for step in (1, 2, 3, 4):
            store.save(model=MODEL, step=step)
        store.pin(1)

        assert "holding" not in self.saved(store, 5, 6)

        assert store.steps() == (1, 3, 4, 5, 6)

    def test_what_cannot_be_read_stays_and_does_not_count(self, tmp_path, caplog):
        store = ckptstore.Store(tmp_path, keep=Keep(last=3))
        for step in (1, 2, 3):
            store.save(model=MODEL, step=step)
        damage(store, 3)

        assert "holding" not in self.saved(store, 4, 5)

        assert store.steps() == (2, 3, 4, 5)
        assert "step 3 stays, for it cannot be read" in caplog.text

    def test_what_was_never_finished_does_not_count(self, tmp_path):
        store = ckptstore.Store(tmp_path, keep=Keep(last=3))
        for step in (1, 2, 3):
            store.save(model=MODEL, step=step)
        store._storage.create("step-00000007/model.pt", b"half of a save that was killed")

        assert "holding" not in self.saved(store, 4, 5)

        assert store.steps() == (3, 4, 5)
        assert store.open().step == 5

    def test_what_was_just_saved_stays_even_below_all_others(self, tmp_path):
        store = ckptstore.Store(tmp_path, keep=Keep(last=3))

        asked = self.saved(store, 7, 8, 9, 10, 2)

        assert "holding" not in asked
        assert store.steps() == (2, 8, 9, 10)

    def test_where_much_is_to_go_all_is_judged(self, tmp_path):
        store = ckptstore.Store(tmp_path, keep=Keep())
        for step in range(1, 25):
            store.save(model=MODEL, step=step)
        store = ckptstore.Store(tmp_path, keep=Keep(last=2))
        store._retention._many = True

        assert "holding" in self.saved(store, 25)

        assert store.steps() == (24, 25)
